"""A shell may have closed what a program reads or writes: it then does its work, and tells nobody."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from celery_sql_results import DatabaseBackend
from cli.run import PATIENCE, Ended, Program
from servers.pool import on


def closed(program: Program, stream: str, *arguments: str) -> Ended:
    """Run a command as `command >&-` does."""
    call = f"{shlex.join(program.command(*arguments))} {stream}"
    ended = subprocess.run(
        call, shell=True, env=program.environment, capture_output=True, timeout=PATIENCE, check=False
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@on("sqlite")
@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("words", [("list",), ("stats", "--json"), ("show", "4444"), ("info",)])
def test_no_output(program: Program, words: tuple[str, ...]) -> None:
    """It is looked for in vain, and nothing is wrong."""
    ended = closed(program, ">&-", *words)

    assert (ended.code, ended.out, ended.told) == (0, b"", "")


@on("sqlite")
@pytest.mark.usefixtures("stored")
def test_no_input(program: Program) -> None:
    """Nobody can be asked, so nothing is done."""
    ended = closed(program, "<&-", "forget", "--state", "FAILURE")

    assert (ended.code, ended.out, ended.told.count("\n")) == (2, b"", 1)
    assert "--yes does it without asking" in ended.told


@on("sqlite")
def test_nobody_is_told(program: Program, stored: DatabaseBackend) -> None:
    """What was agreed to is done also where its progress cannot be told."""
    ended = closed(program, "2>&-", "forget", "--state", "FAILURE", "--yes")

    assert (ended.code, stored.get_state("22222222-cccc")) == (0, "PENDING")
