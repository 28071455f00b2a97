"""`forget` deletes what is meant, after a question, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest
import sqlalchemy as sa

from celery_sql_results import DatabaseBackend
from cli.rows import SOME, failure, put, row
from cli.run import PATIENCE, Program
from servers import Database
from servers.pool import on

ALL = [each["task_id"] for each in SOME]
FAILED = ["22222222-cccc", "33333333-dddd"]


def left(backend: DatabaseBackend) -> list[str]:
    """The ids that are there."""
    task = backend.models.task
    with backend.database.engine.connect() as connection:
        return list(connection.scalars(sa.select(task.c.task_id).order_by(task.c.task_id)))


def without(*ids: str) -> list[str]:
    """All ids but some."""
    return sorted(set(ALL) - set(ids))


def test_by_filter(program: Program, stored: DatabaseBackend) -> None:
    """Those that meet it are gone, the others are there."""
    ended = program("forget", "--state", "failure", "--yes")

    assert (ended.code, ended.lines, left(stored)) == (0, ["deleted 2 of 2 results"], without(*FAILED))


def test_by_ids(results: Program, stored: DatabaseBackend) -> None:
    """Also what is not finished, if it is named; ids may be shortened."""
    ended = results("forget", "6666", "11111111-aaaa", "--yes", "--json")

    expected = {"deleted": 2, "counted": 2, "left": 0, "stopped": False}
    assert (ended.code, ended.json, left(stored)) == (0, [expected], without("66666666-gggg", "11111111-aaaa"))


def test_all(results: Program, stored: DatabaseBackend) -> None:
    """All that is finished: what still runs is only meant if that is said."""
    assert results("forget", "--all", "--yes").code == 0
    assert left(stored) == ["66666666-gggg", "77777777-hhhh"]

    assert results("forget", "--state", "RETRY", "--yes").code == 0
    assert left(stored) == ["66666666-gggg"]


def test_an_id_and_a_filter(results: Program, stored: DatabaseBackend) -> None:
    """What has the id, but does not meet the filter, is not meant."""
    ended = results("forget", "11111111-aaaa", "22222222-cccc", "--state", "FAILURE", "--yes")

    assert (ended.code, left(stored)) == (0, without("22222222-cccc"))


def test_dry_run(results: Program, stored: DatabaseBackend) -> None:
    """It says how many of what, and deletes nothing."""
    ended = results("forget", "--state", "FAILURE", "--dry-run")

    assert ended.lines[0].split() == ["state", "task", "results"]
    assert sorted(line.split() for line in ended.lines[1:-1]) == [
        ["FAILURE", "mail.send", "1"],
        ["FAILURE", "shop.pay", "1"],
    ]
    assert (ended.code, ended.lines[-1], left(stored)) == (0, "would delete 2 results", without())


@pytest.mark.parametrize("words", [(), ("--all", "11111111-aaaa"), ("--state", "FAILURE")])
def test_refused(results: Program, stored: DatabaseBackend, words: tuple[str, ...]) -> None:
    """Nothing is deleted that nobody has asked for, or agreed to."""
    ended = results("forget", *words)

    assert (ended.code, len(ended.told.splitlines()), left(stored)) == (2, 1, without())


@on("sqlite")
@pytest.mark.parametrize(("typed", "code", "gone"), [(b"y\n", 0, FAILED), (b"n\n", 2, [])])
def test_a_question(results: Program, stored: DatabaseBackend, typed: bytes, code: int, gone: list[str]) -> None:
    """On a terminal, a person is asked, who is told how many there are."""
    ended = results.on_terminal("forget", "--state", "FAILURE", typed=typed)

    assert (ended.code, "Delete 2 results?" in ended.text, left(stored)) == (code, True, without(*gone))


def test_nothing_there(results: Program, stored: DatabaseBackend) -> None:
    """That is no error; an id that nobody knows is."""
    assert results("forget", "--task", "nobody.*").code == 0
    assert results("forget", "99999999", "--yes").code == 4
    assert left(stored) == without()


def test_groups(results: Program, stored: DatabaseBackend) -> None:
    """A saved group goes by its id; its members stay."""
    app = stored.app
    for name in ("group-a", "group-b"):
        app.GroupResult(name, [app.AsyncResult("11111111-aaaa")]).save(stored)

    assert results("forget", "group-a", "--yes").lines == ["deleted 1 of 1 group result"]
    assert results("forget", "--group-result", "group-b", "--yes").code == 0
    assert [stored.restore_group(name) for name in ("group-a", "group-b")] == [None, None]
    assert left(stored) == without()


def open_chord(backend: DatabaseBackend, *members: str) -> None:
    """A chord that waits for some tasks."""
    app = backend.app
    header = [app.AsyncResult(id_) for id_ in members]
    backend.apply_chord(("group-1", header), app.signature("shop.add", task_id="body", app=app))


@pytest.mark.parametrize("id_", ["11111111-aaaa", "33333333-dddd"])
def test_members_of_open_chords(results: Program, stored: DatabaseBackend, id_: str) -> None:
    """They are left, unless that is said aloud: one that says so itself, and one that only the header names."""
    open_chord(stored, "33333333-dddd", "not there yet")

    refused = results("forget", id_, "--yes")
    assert (refused.code, "group-1" in refused.told, left(stored)) == (2, True, without())

    ended = results("forget", "--all", "--yes", "--json")
    assert (ended.json[0]["deleted"], ended.json[0]["left"]) == (4, 2)
    assert results("forget", id_, "--yes", "--force").code == 0
    assert id_ not in left(stored)


def many(backend: DatabaseBackend, number: int) -> None:
    """So many failures."""
    task, rows = backend.models.task, [failure(f"{n:08}") for n in range(number)]
    put(backend)
    names = [column.name for column in task.columns if column.name != "id"]
    with backend.database.engine.connect() as connection:
        connection.execute(task.insert(), [{name: each.get(name) for name in names} for each in rows])
        connection.commit()


def test_what_changes_meanwhile(results: Program, backend: DatabaseBackend, database: Database) -> None:
    """What was sent again since it was counted, and what was stored since, is not deleted, whenever it failed."""
    put(backend, failure("again"), failure("gone"))
    command = results.command("forget", "--state", "FAILURE")
    master, slave = os.openpty()
    process = subprocess.Popen(command, env=results.environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    while b"Delete 2 results?" not in said:
        said += os.read(master, 1000)
    task = backend.models.task
    with backend.database.engine.connect() as connection:
        connection.execute(sa.update(task).where(task.c.task_id == "again").values(status="STARTED", date_done=None))
        connection.commit()
    put(backend, failure("late", done=60), failure("new", done=-60))
    os.write(master, b"y\n")
    _drain(master)

    assert (process.wait(PATIENCE), left(backend)) == (0, ["again", "late", "new"])


def _drain(master: int) -> None:
    try:
        while os.read(master, 1000):
            pass
    except OSError:  # how Linux tells of the end
        os.close(master)


def test_what_has_no_time(results: Program, backend: DatabaseBackend) -> None:
    """It is not before a time, whether that is asked of a list or of what is deleted."""
    none = {"date_queued": None, "date_started": None}
    put(backend, row("old", done=None, status="STARTED"), row("timeless", done=None, status="STARTED", **none))
    words = ("--state", "STARTED", "--until", "2026-03-02")

    assert [each["task_id"] for each in results("list", *words, "--json").json] == ["old"]
    assert (results("forget", *words, "--yes").code, left(backend)) == (0, ["timeless"])
    assert (results("forget", "--state", "STARTED", "--yes").code, left(backend)) == (0, [])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_and_begun_again(results: Program, backend: DatabaseBackend, how: signal.Signals) -> None:
    """After Ctrl-C, or after it was killed, what was deleted is gone, and the same command deletes the rest."""
    number = 6_000
    many(backend, number)
    command = results.command("forget", "--state", "FAILURE", "--yes", "--json")
    process = subprocess.Popen(command, env=results.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + PATIENCE
    while len(left(backend)) == number and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    out, _ = process.communicate(timeout=PATIENCE)

    there = len(left(backend))
    assert there < number
    if how == signal.SIGINT and process.returncode:  # else it had ended before
        summary: dict[str, Any] = json.loads(out)
        assert process.returncode == 130
        assert (summary["deleted"], summary["counted"], summary["stopped"]) == (number - there, number, True)
    again = results("forget", "--state", "FAILURE", "--yes", "--json")
    assert (again.code, again.json[0]["deleted"], left(backend)) == (0, there, [])


@pytest.mark.without("sqlite", reason="it has no roles")
@pytest.mark.without("portable", reason="it knows nothing of rights")
def test_a_role_that_may_only_read(results: Program, stored: DatabaseBackend, database: Database) -> None:
    """It is told so in one line, before anybody is asked."""
    database.server.create_role("reader", "secret", database.name, ddl=False, write=False)
    url = database.server.url(database.name, user="reader", password="secret")

    ended = results.but(url=url)("forget", "--state", "FAILURE")

    assert (ended.code, "may not DELETE" in ended.told.splitlines()[-1]) == (2, True)
    assert results.but(url=url)("forget", "--state", "FAILURE", "--dry-run").code == 0
    assert left(stored) == without()


@on("postgresql")
def test_the_database_is_away(results: Program, database: Database) -> None:
    """One line of an error."""
    url = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    ended = results.but(url=url)("forget", "--all", "--yes")

    assert (ended.code, "Traceback" in ended.told) == (2, False)
    assert ended.told.splitlines()[-1].startswith(f"Error: {url} did not do what was asked (OperationalError: ")


def test_progress_without_rich(results: Program, backend: DatabaseBackend) -> None:
    """Programs read one line of JSON, and nothing beside it."""
    put(backend, *(row(f"{n}") for n in range(3)))

    ended = results.without_rich("forget", "--all", "--yes", "--json")

    assert (ended.json[0]["deleted"], ended.told) == (3, "")
