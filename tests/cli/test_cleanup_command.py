"""`cleanup` deletes what has expired, and says what that was."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from celery_sql_results import DatabaseBackend
from cli.doing import await_
from cli.rows import failure, put, row
from cli.run import PATIENCE, Ended, Program
from servers import Database
from servers.pool import on


def days_ago(days: float) -> datetime:
    """A time, as a row has it."""
    return datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(days=days)


OLD = (
    row("new") | {"date_done": days_ago(1)},
    row("old") | {"date_done": days_ago(40)},
    failure("old-failure", name="mail.send") | {"date_done": days_ago(40)},
    row("running") | {"date_done": None, "status": "STARTED"},
)


@pytest.fixture
def aged(backend: DatabaseBackend) -> DatabaseBackend:
    """A backend with results that have expired, and such that have not."""
    put(backend, *OLD)
    return backend


def left(backend: DatabaseBackend) -> list[str]:
    """The ids that are there."""
    task = backend.models.task
    with backend.database.engine.connect() as connection:
        return list(connection.scalars(sa.select(task.c.task_id).order_by(task.c.task_id)))


def counts(ended: Ended) -> dict[str, int]:
    """How many rows of what."""
    return {line["what"]: line["rows"] for line in ended.json if "what" in line}


def test_by_the_settings(results: Program, aged: DatabaseBackend) -> None:
    """After `result_expires`; chords and waiters after times of their own."""
    app = aged.app
    aged.apply_chord(("group-1", [app.AsyncResult("x")]), app.signature("shop.add", task_id="body", app=app))
    chords = aged.models.chords
    with aged.database.engine.connect() as connection:
        connection.execute(sa.update(chords).values(date_created=days_ago(40)))
        connection.commit()

    ended = results.but(settings={"result_expires": 30 * 86400})("cleanup", "--yes", "--json")
    found = counts(ended)

    assert (ended.code, left(aged)) == (0, ["new", "running"])
    assert {"results": found["results"], "groups": found["groups"], "chords": found["chords"]} == {
        "results": 2,
        "groups": 0,
        "chords": 1,
    }
    assert ended.json[-1] == {"deleted": 3, "stopped": False}


def test_older_than(program: Program, aged: DatabaseBackend) -> None:
    """Instead of `result_expires`, which only a project knows."""
    ended = program("cleanup", "--older-than", "30d", "--yes")

    assert (ended.code, ended.lines[-1], left(aged)) == (0, "deleted 2 rows", ["new", "running"])


def test_only_a_project_knows(results: Program, aged: DatabaseBackend, database: Database) -> None:
    """Without it, nothing expires by a default of Celery."""
    if database.kind == "portable":
        pytest.skip("only a project can say what this name of a database stands for")
    ended = results.but(name="celery-sql-results")("cleanup", "--yes")

    assert (ended.code, "--older-than" in ended.told, len(left(aged))) == (2, True, 4)


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (("--state", "failure"), ["old-failure"]),
        (("--task", "shop.*"), ["old"]),
        (("--task", "shop.*", "--state", "FAILURE"), []),
    ],
)
def test_filters(results: Program, aged: DatabaseBackend, words: Sequence[str], gone: Sequence[str]) -> None:
    """Only results that meet them."""
    ended = results("cleanup", "--older-than", "30d", "--yes", *words, "--json")

    assert (ended.code, counts(ended)) == (0, {"results": len(gone)})
    assert left(aged) == sorted({"new", "old", "old-failure", "running"} - set(gone))


def test_a_state_of_the_users_own(results: Program, aged: DatabaseBackend) -> None:
    """It is taken as it is."""
    put(aged, row("own", done=60 * 24 * 365, status="gone"), row("other", done=60 * 24 * 365, status="GONE"))
    ended = results("cleanup", "--older-than", "30d", "--yes", "--state", "gone")

    assert (ended.code, "own" in left(aged), "other" in left(aged)) == (0, False, True)


def test_dry_run_and_a_question(results: Program, aged: DatabaseBackend) -> None:
    """What would be deleted is counted; nobody is asked in a pipe, so nothing is done there."""
    dry = results("cleanup", "--older-than", "30d", "--dry-run", "--json")
    refused = results("cleanup", "--older-than", "30d")

    assert (dry.code, counts(dry)["results"], refused.code, len(left(aged))) == (0, 2, 2, 4)
    asked = results.on_terminal("cleanup", "--older-than", "30d", typed=b"y\n")
    assert (asked.code, len(left(aged))) == (0, 2)


@on("postgresql", "mariadb", "sqlite")
def test_ctrl_c(results: Program, backend: DatabaseBackend) -> None:
    """It stops after a batch, and the same command goes on."""
    put(backend)
    task, number = backend.models.task, 30_000
    names = [column.name for column in task.columns if column.name != "id"]
    old: dict[str, Any] = dict.fromkeys(names) | {"status": "SUCCESS", "date_done": days_ago(40)}
    with backend.database.engine.connect() as connection:
        connection.execute(task.insert(), [old | {"task_id": f"{n:06}"} for n in range(number)])
        connection.commit()
    command = results.command("cleanup", "--older-than", "30d", "--yes", "--json")
    process = subprocess.Popen(command, env=results.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    await_(lambda: process.poll() is not None or len(left(backend)) < number)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    there = len(left(backend))

    assert process.returncode in ((130,) if there else (0, 130, -signal.SIGINT))  # it may be ending already
    assert results("cleanup", "--older-than", "30d", "--yes", "--json").json[-1]["deleted"] == there
    assert left(backend) == []


@pytest.mark.without("sqlite", reason="it has no roles")
@pytest.mark.without("portable", reason="it knows nothing of rights")
def test_a_role_that_may_only_read(results: Program, aged: DatabaseBackend, database: Database) -> None:
    """One line, and nothing is done."""
    database.server.create_role("reader", "secret", database.name, ddl=False, write=False)
    url = database.server.url(database.name, user="reader", password="secret")

    ended = results.but(url=url)("cleanup", "--older-than", "30d", "--yes")

    assert (ended.code, "may not DELETE" in ended.told.splitlines()[-1], len(left(aged))) == (2, True, 4)


@on("postgresql")
def test_two_at_once(results: Program, aged: DatabaseBackend) -> None:
    """None waits for the other: both end, and what has expired is gone."""
    command = results.command("cleanup", "--older-than", "30d", "--yes")
    both = [subprocess.Popen(command, env=results.environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    began = time.monotonic()

    assert [process.wait(PATIENCE) for process in both] == [0, 0], time.monotonic() - began
    assert left(aged) == ["new", "running"]
