"""A shell completes commands and options, quickly: what is not needed for that is not imported."""

from __future__ import annotations

import subprocess
import sys

from cli.run import PATIENCE, environment


def completed(*words: str) -> list[str]:
    """What a shell offers for the last of some words."""
    env = environment(
        _CELERY_SQL_RESULTS_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(("celery-sql-results", *words)),
        COMP_CWORD=str(len(words)),
    )
    command = [sys.executable, "-m", "celery_sql_results"]
    ended = subprocess.run(command, env=env, capture_output=True, timeout=PATIENCE, check=True)
    return [line.partition(",")[2] for line in ended.stdout.decode().splitlines()]


def test_commands() -> None:
    """Those that begin so."""
    assert completed("ch") == ["chords", "check"]
    assert completed("up") == ["upgrade"]


def test_options() -> None:
    """Of the program, and of a command."""
    assert completed("--data") == ["--database-url"]
    assert completed("upgrade", "--dr") == ["--dry-run"]
    assert completed("check", "--for", "re") == ["reader"]


def test_the_script_of_a_shell() -> None:
    """What is to be sourced, as the manual says."""
    env = environment(_CELERY_SQL_RESULTS_COMPLETE="zsh_source")
    command = [sys.executable, "-m", "celery_sql_results"]
    ended = subprocess.run(command, env=env, capture_output=True, timeout=PATIENCE, check=True)

    assert b"#compdef celery-sql-results" in ended.stdout
