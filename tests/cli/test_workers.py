"""`workers`: which of them are alive, and which tasks are lost with one."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import states

from acceptance.conftest import MakeApp, make
from acceptance.worker import Worker, running, settings_for
from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from cli.looking import HOSTILE, is_tame, look, succeed, through
from faults.load import until
from servers import Database
from servers.pool import on

__all__ = ["make", "through"]  # fixtures


def run_of(backend: DatabaseBackend, name: str, began: float = 3600, **known: Any) -> dict[str, Any]:
    """A run of a worker that began so many seconds ago and was seen just now, in its row."""
    workers, now = backend.models.workers, utc_now()
    row = {"name": name, "run_id": f"{name}-{began}"[:36], "host": "shop", "pid": 7, "app": "shop", "busy": 1}
    row |= {"date_started": now - timedelta(seconds=began), "date_seen": now, "clock": now, "spooled": 2}
    row |= {"concurrency": 4, "versions": "celery 5.7.0", **known}
    backend.database.rows  # noqa: B018 - the tables are made ready
    with backend.database.engine.connect() as connection:
        connection.execute(workers.insert(), row)
        connection.commit()
    return row


def started(backend: DatabaseBackend, task_id: str, worker: str, ago: float) -> None:
    """A task that began on a worker so many seconds ago."""
    task = backend.models.task
    known = {"task_id": task_id, "status": states.STARTED, "name": "shop.pay", "worker": worker, "date_done": None}
    backend.database.rows  # noqa: B018 - the tables are made ready
    with backend.database.engine.connect() as connection:
        connection.execute(task.insert(), {**known, "date_started": utc_now() - timedelta(seconds=ago)})
        connection.commit()


def long_ago() -> datetime:
    return utc_now() - timedelta(hours=1)


def test_who_is_alive(database: Database, backend: DatabaseBackend, through: str) -> None:
    """Those that are alive come first; what has stored results and has no row comes last."""
    run_of(backend, "gone", date_seen=long_ago())
    run_of(backend, "ended", date_ended=utc_now(), date_seen=long_ago() - timedelta(hours=1))
    run_of(backend, "alive")
    succeed(backend, "a", hostname="alive")
    succeed(backend, "b", hostname="older")
    found = look(database, "workers", "--json", through=through)

    told = [("alive", "alive"), ("gone", "gone"), ("ended", "ended"), ("older", "no row")]
    assert [(row["name"], row["state"]) for row in found.rows] == told
    assert {name: found.rows[0][name] for name in ("busy", "concurrency", "spooled", "host", "pid", "versions")} == {
        "busy": 1, "concurrency": 4, "spooled": 2, "host": "shop", "pid": 7, "versions": "celery 5.7.0",
    }  # fmt: skip
    assert (found.code, found.err) == (0, "")


def test_what_is_lost(database: Database, backend: DatabaseBackend, through: str) -> None:
    """A task is, if every run that may have had it is gone, by the rules by which a worker lets it fail."""
    run_of(backend, "gone", began=900, date_seen=long_ago())
    run_of(backend, "restarted", began=900, date_ended=long_ago(), date_seen=long_ago())
    run_of(backend, "restarted", began=300)
    run_of(backend, "alive", began=900)
    started(backend, "lost", "gone", 600)
    started(backend, "lost-before-the-restart", "restarted", 600)
    started(backend, "after-the-restart", "restarted", 100)
    started(backend, "before-any-run", "gone", 1000)
    started(backend, "of-one-alive", "alive", 600)
    started(backend, "of-nobody-known", "unknown", 600)
    succeed(backend, "done", hostname="gone")
    found = look(database, "workers", "--lost", "--json", through=through)
    of_one = look(database, "workers", "--lost", "--json", "--worker=rest*").rows

    assert {(row["task_id"], row["why"].rpartition(" at ")[0]) for row in found.rows} == {
        ("lost", "worker gone was last seen"),
        ("before-any-run", "worker gone was last seen"),
        ("lost-before-the-restart", "worker restarted was started anew"),
    }
    assert [row["task_id"] for row in of_one] == ["lost-before-the-restart"]


@on("sqlite")
def test_tables(database: Database, backend: DatabaseBackend) -> None:
    run_of(backend, "alive")
    found = look(database, "workers")
    nothing = look(database, "workers", "--lost")

    assert found.out.splitlines()[1].split()[:2] == ["alive", "alive"]
    assert look(database, "workers", "--csv").out.startswith("name,state,seen,started,busy,concurrency,spooled,")
    assert (nothing.code, nothing.err) == (0, "no task is lost\n")


@on("postgresql", "mariadb", "sqlite")
def test_tables_without_that_of_workers(database: Database, backend: DatabaseBackend) -> None:
    """As an older release has left them: who has stored results is known all the same."""
    succeed(backend, "a", hostname="older")
    database.execute("DROP TABLE celery_taskmeta_workers")
    as_is: dict[str, Any] = {"through": "celery", "database_create_tables_at_setup": False}
    found, lost = look(database, "workers", "--json", **as_is), look(database, "workers", "--lost", **as_is)

    assert [(row["name"], row["state"]) for row in found.rows] == [("older", "no row")]
    assert lost.code == 2
    assert "has no table of workers" in lost.err


def test_hostile_words(database: Database, backend: DatabaseBackend) -> None:
    run_of(backend, HOSTILE, date_seen=long_ago(), host=HOSTILE, app=HOSTILE, versions=HOSTILE)
    started(backend, "lost", HOSTILE, 600)
    succeed(backend, "a", hostname=f"other {HOSTILE}")
    for words in (("--utc",), ("--csv",), ("--json",), ("--lost",), ("--lost", "--json")):
        found = look(database, "workers", *words)
        assert is_tame(found.out)
        assert "[31mred" in found.out


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize("ends", [True, False], ids=["ends", "is killed"])
def test_a_real_worker(tmp_path: Path, make: MakeApp, database: Database, ends: bool) -> None:
    """It is alive; and if it ends well, that is told at once."""
    worker = Worker(tmp_path, settings_for(tmp_path, f"sql+{database.url}"), "--pool=threads", "--concurrency=3")
    with running(worker):
        until(lambda: look(database, "workers", "--json").rows, "the row of the worker")
        [alive] = look(database, "workers", "--json").rows
        if not ends:
            worker.kill()
    [after] = look(database, "workers", "--json").rows

    assert (alive["name"], alive["state"], alive["concurrency"]) == ("shop@localhost", "alive", 3)
    assert "celery-sql-results" in alive["versions"]
    assert after["state"] == ("ended" if ends else "alive")
