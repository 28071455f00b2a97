"""`wait` tells a script by its exit code how tasks have ended."""

from __future__ import annotations

import subprocess
import time

import pytest

from celery_sql_results import DatabaseBackend
from cli.doing import await_
from cli.rows import failure, put, row
from cli.run import PATIENCE, Program
from servers import Database
from servers.pool import on


def test_ready_already(program: Program, stored: DatabaseBackend) -> None:
    """The states tell; ids may be shortened."""
    assert program("wait", "4444", "--timeout", "0").lines == ["SUCCESS  44444444-eeee"]
    assert program("wait", "22222222-cccc", "1111111", "--json").code == 1


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("44444444-eeee", "11111111-aaaa"), 0),
        (("44444444-eeee", "55555555-ffff"), 1),
        (("44444444-eeee", "22222222-cccc", "--any"), 0),
        (("22222222-cccc", "55555555-ffff", "--any"), 1),
        (("44444444-eeee", "unknown", "--timeout", "1"), 124),
        (("66666666-gggg", "--timeout", "0"), 124),
        (("unknown", "44444444-eeee", "--any"), 0),
        (("unknown", "22222222-cccc", "--any", "--timeout", "1"), 124),
        ((), 2),
    ],
)
def test_exit_codes(results: Program, words: tuple[str, ...], code: int) -> None:
    """Of all, or of any one."""
    assert results("wait", *words).code == code


def test_until_it_is_ready(results: Program, backend: DatabaseBackend) -> None:
    """It begins before anybody knows the task, and ends as soon as it has failed."""
    put(backend)
    process = subprocess.Popen(
        results.command("wait", "t-1", "t-2", "--json"),
        env=results.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    time.sleep(1)
    backend.store_result("t-1", 3, "SUCCESS")
    first = process.stdout.readline()
    backend.store_result("t-2", ValueError("no such order"), "FAILURE", traceback="…\nValueError: no such order")
    second, _ = process.communicate(timeout=PATIENCE)

    assert ('"t-1"' in first, '"t-2"' in second, "no such order" in second) == (True, True, True)
    assert process.returncode == 1


def test_no_exception_is_made(results: Program, backend: DatabaseBackend) -> None:
    """What a task has raised is shown as it is written: nothing is imported for it."""
    kind = b'{"exc_type": "Odd", "exc_message": [], "exc_module": "no_such_module"}'
    put(backend, failure("t-1", result=kind, traceback="shop.Odd: \x1b[2J"), row("t-2", result=b"\x80\x04."))

    ended = results("wait", "t-1", "t-2")

    assert (ended.code, sorted(ended.lines)) == (1, ["FAILURE  t-1  shop.Odd: \\x1b[2J", "SUCCESS  t-2"])


@on("postgresql", "sqlite")
def test_ctrl_c(results: Program, backend: DatabaseBackend) -> None:
    """It ends with 130."""
    put(backend)
    process = subprocess.Popen(
        results.command("wait", "t-1", "t-2"), env=results.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    backend.store_result("t-1", 3, "SUCCESS")
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(2)
    _, told = process.communicate(timeout=PATIENCE)

    assert (process.returncode, told.splitlines()[-1]) == (130, b"Stopped.")


@pytest.mark.without("sqlite", reason="it has no roles")
@pytest.mark.without("portable", reason="it knows nothing of rights")
def test_a_role_that_may_only_read(results: Program, stored: DatabaseBackend, database: Database) -> None:
    """It may wait as well."""
    database.server.create_role("reader", "secret", database.name, ddl=False, write=False)
    url = database.server.url(database.name, user="reader", password="secret")
    process = subprocess.Popen(
        results.but(url=url).command("wait", "t-1"), env=results.but(url=url).environment, stderr=subprocess.DEVNULL
    )
    time.sleep(1)
    stored.store_result("t-1", 3, "SUCCESS")

    assert await_(lambda: process.poll() is not None)
    assert process.returncode == 0
