"""Who is alive: each run of a worker has a row, by the clock of the database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from celery_sql_results.rows import WorkerRows
from servers import Database
from servers.pool import on
from support import Backends

HOUR = timedelta(hours=1)


def run(name: str = "w@host", run_id: str = "1", **more: Any) -> dict[str, Any]:
    """What one run of a worker says of itself."""
    known = {"host": "host", "pid": 4711, "app": "shop", "versions": "celery 5.7.0", "date_started": utc_now()}
    return {"name": name, "run_id": run_id, **known, "clock": utc_now(), **dict.fromkeys(COUNTS), **more}


COUNTS = ("spooled", "busy", "concurrency")


@pytest.fixture
def workers(backend: DatabaseBackend) -> WorkerRows:
    """The rows of the workers of a backend."""
    found = backend.database.rows.workers
    assert found is not None
    return found


def aged(backend: DatabaseBackend, run_id: str, by: timedelta) -> None:
    """Let a run be seen last so long ago."""
    workers = backend.models.workers
    seen = sa.update(workers).where(workers.c.run_id == run_id).values(date_seen=backend.database.impl.now(-by))
    with backend.database.impl.connect(backend.database.engine) as connection:
        connection.execute(seen)


def shown(workers: WorkerRows) -> list[tuple[str, str, bool]]:
    """Who is there, and who is gone."""
    return [(row["name"], row["run_id"], row["is_gone"]) for row in workers.all()]


def test_what_a_worker_says_is_there(workers: WorkerRows) -> None:
    """All of it, and what it says next replaces it."""
    told = run(spooled=3, busy=2, concurrency=8)
    workers.seen(told)
    workers.seen({**told, "spooled": 0, "busy": None})
    [found] = workers.all()

    assert {**found, "date_seen": None} == {
        **told,
        "spooled": 0,
        "busy": None,
        "date_seen": None,
        "date_ended": None,
        "is_gone": False,
    }
    assert abs(found["date_seen"] - utc_now()) < HOUR


def test_who_is_not_seen_is_gone(workers: WorkerRows, backend: DatabaseBackend) -> None:
    """Until it is seen again."""
    workers.seen(run())
    before = shown(workers)
    aged(backend, "1", timedelta(seconds=90))
    silent = shown(workers)
    workers.seen(run())

    assert [before, silent, shown(workers)] == [[("w@host", "1", gone)] for gone in (False, True, False)]


def test_who_has_ended_is_gone_and_its_row_stays(workers: WorkerRows) -> None:
    """Of the tasks of a worker without a row, nobody could tell that they are lost."""
    workers.seen(run())
    workers.ended("w@host", "1")
    [found] = workers.all()

    assert found["is_gone"]
    assert abs(found["date_ended"] - utc_now()) < HOUR
    assert found["date_ended"] == found["date_seen"]


def test_runs_keep_apart(workers: WorkerRows) -> None:
    """A worker that was started anew, two that were given the same name, and others."""
    began = utc_now() - HOUR
    for told in (run(date_started=began), run(run_id="2"), run("v@host", "3")):
        workers.seen(told)
    workers.ended("w@host", "1")

    assert shown(workers) == [("v@host", "3", False), ("w@host", "2", False), ("w@host", "1", True)]


def test_rows_of_old_are_swept(workers: WorkerRows, backend: DatabaseBackend) -> None:
    """And no others. A worker that lives has its row again with the next beat."""
    for number in ("1", "2", "3"):
        workers.seen(run(run_id=number, date_started=datetime(2026, 1, int(number))))
    aged(backend, "1", 25 * HOUR)
    aged(backend, "3", 23 * HOUR)
    swept = workers.sweep(24 * HOUR)
    left = shown(workers)
    workers.seen(run(run_id="1", date_started=datetime(2026, 1, 1)))

    assert (swept, left) == (1, [("w@host", "3", True), ("w@host", "2", False)])
    assert shown(workers) == [*left, ("w@host", "1", False)]


@on("postgresql", "mariadb", "sqlite")
def test_each_beat_is_one_statement(database: Database, backends: Backends) -> None:
    """But the first."""
    seen: list[str] = []

    def listen(engine: sa.Engine) -> None:
        event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2].split()[0]))

    workers = backends(database_engine_callback=listen).database.rows.workers
    assert workers is not None
    workers.seen(run())
    seen.clear()
    workers.seen(run())

    assert seen == ["UPDATE"]


def test_other_tables_have_other_workers(workers: WorkerRows, backends: Backends) -> None:
    """Apps whose tables differ do not see each other's."""
    other = backends(database_table_names={"task": "other_tasks", "group": "other_groups"}).database.rows.workers
    assert other is not None
    workers.seen(run())
    other.seen(run("v@host"))

    assert [shown(workers), shown(other)] == [[("w@host", "1", False)], [("v@host", "1", False)]]


@on("postgresql", "mariadb")
def test_who_may_only_read_sees_them(database: Database, backends: Backends, workers: WorkerRows) -> None:
    """Its backend has no rows of workers to write; whoever reads makes some."""
    workers.seen(run())
    database.server.create_role("guest", "secret", database.name, ddl=False, write=False)
    guest = backends(database.server.url(database.name, user="guest", password="secret"))

    assert guest.database.rows.workers is None
    assert shown(WorkerRows(guest.database.engine, guest.database.impl, guest.models)) == [("w@host", "1", False)]
