"""Who is alive, as real workers tell it: they start, end, are killed, and start again under the same name."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import celery
import pytest
import sqlalchemy as sa
from celery import Celery, states

from acceptance.conftest import MakeApp
from acceptance.worker import PATIENCE, TICK, Worker, running, settings_for
from celery_sql_results import __version__
from servers import Database
from servers.pool import on
from support import need

POOLS = [("postgresql", "prefork"), ("mariadb", "threads"), ("sqlite", "solo"), ("postgresql", "gevent")]
POOLS += [("sqlite", "eventlet")]


def runs(app: Celery) -> list[dict[str, Any]]:
    """All runs of workers that the database knows."""
    workers = app.backend.database.rows.workers
    assert workers is not None
    return [dict(row) for row in workers.all()]


def eventually(look: Callable[[], object], expected: object) -> object:
    """What is found as soon as it is as expected, at the latest when patience ends."""
    deadline = time.monotonic() + PATIENCE
    while look() != expected and time.monotonic() < deadline:
        time.sleep(TICK)
    return look()


def gone(app: Celery) -> list[tuple[str, bool]]:
    """Each run, and whether it is gone."""
    return [(row["name"], row["is_gone"]) for row in runs(app)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("database", "pool"), POOLS, indirect=["database"])
def test_a_worker_is_there_until_it_ends(tmp_path: Path, make: MakeApp, database: Database, pool: str) -> None:
    """It says what it is, and what people may ask of it."""
    need(pool)
    settings = settings_for(tmp_path, f"sql+{database.url}", database_spool_dir=str(tmp_path / "spool"))
    worker, app = Worker(tmp_path, settings, f"--pool={pool}", "--concurrency=2"), make(settings)
    with running(worker):
        assert eventually(lambda: gone(app), [("shop@localhost", False)]) == [("shop@localhost", False)]
        [found] = runs(app)
    [after] = runs(app)

    assert {name: found[name] for name in ("app", "spooled", "busy", "concurrency", "date_ended")} == {
        "app": "shop",
        "spooled": 0,
        "busy": 0,
        "date_ended": None,
        "concurrency": 1 if pool == "solo" else 2,
    }
    assert re.match(rf"celery-sql-results {__version__}, celery {celery.__version__}, SQL", found["versions"])
    assert (after["run_id"], after["is_gone"], after["date_ended"] is None) == (found["run_id"], True, False)
    assert worker.complaints == []


@on("postgresql", "sqlite")
def test_a_worker_that_is_killed_and_started_again(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """Its name has two runs. The first does not say that it has ended."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    first, again, app = Worker(tmp_path, settings), Worker(tmp_path, settings), make(settings)
    with running(first):
        eventually(lambda: len(runs(app)), 1)
        first.kill()
    with running(again):
        eventually(lambda: len(runs(app)), 2)
        latest, killed = runs(app)

    assert latest["date_started"] > killed["date_started"]
    assert (killed["name"], killed["date_ended"]) == (latest["name"], None)
    assert (killed["pid"] == latest["pid"], killed["host"] == latest["host"]) == (False, True)


@on("postgresql")
def test_several_workers(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """Two of the same name, as when two apps have one host, and another: each has a row of its own."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    (tmp_path / "b").mkdir()
    workers = Worker(tmp_path, settings), Worker(tmp_path / "b", settings), Worker(tmp_path, settings, name="stock")
    app = make(settings)
    expected = [(name, False) for name in ("shop@localhost", "shop@localhost", "stock@localhost")]
    with running(*workers):
        found = eventually(lambda: gone(app), expected)

    assert found == expected


@on("postgresql")
def test_how_busy_a_worker_is(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """As it was with the last beat."""
    settings = settings_for(tmp_path, f"sql+{database.url}", database_upkeep_interval=3600)
    worker, app = Worker(tmp_path, settings, "--concurrency=3"), make(settings)
    with running(worker):
        result = app.tasks["nap"].delay(PATIENCE)
        found = eventually(lambda: [row["busy"] for row in runs(app)], [1])
        worker.kill()

    assert (found, result.state) == ([1], states.STARTED)


@on("postgresql")
def test_a_database_that_is_away_holds_the_end_of_a_worker_up_for_a_moment_only(
    tmp_path: Path, make: MakeApp, database: Database
) -> None:
    """It answers no more until the worker has ended, which complains of nothing."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    worker, app = Worker(tmp_path, settings, "--concurrency=1"), make(settings)
    engine = sa.create_engine(database.url)
    with running(worker):
        eventually(lambda: len(runs(app)), 1)
        with engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE celery_taskmeta_workers")
            worker.ask_to_stop()
            status = worker.await_end()
    engine.dispose()

    assert status == os.EX_OK
    assert worker.complaints == []


@on("postgresql")
def test_a_role_without_rights_to_the_table(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """The worker does its tasks, and warns of that once, as it starts."""
    make(settings_for(tmp_path, f"sql+{database.url}")).backend.database.rows  # noqa: B018 - the tables are made
    database.server.create_role("clerk", "secret", database.name, ddl=False)
    database.execute("REVOKE INSERT ON celery_taskmeta_workers FROM clerk")
    url = database.server.url(database.name, user="clerk", password="secret")
    settings = settings_for(tmp_path, f"sql+{url}", database_upkeep_interval=0.2)
    worker, app = Worker(tmp_path, settings, "--concurrency=1"), make(settings)
    with running(worker):
        assert app.tasks["add"].delay(2, 3).get(timeout=PATIENCE) == 5
        time.sleep(1)  # five rounds

    assert [line for line in worker.complaints if "may not INSERT on celery_taskmeta_workers" not in line] == []
    assert database.execute("SELECT COUNT(*) FROM celery_taskmeta_workers") == [(0,)]


@on("postgresql")
def test_nothing_is_said_without_upkeep(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """0 is never."""
    settings = settings_for(tmp_path, f"sql+{database.url}", database_upkeep_interval=0)
    worker, app = Worker(tmp_path, settings), make(settings)
    with running(worker):
        assert app.tasks["add"].delay(2, 3).get(timeout=PATIENCE) == 5

    assert runs(app) == []


@on("postgresql")
def test_a_worker_that_ends_at_once(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """A cold shutdown leaves a row behind, whether or not it says that it has ended: its tasks are known to be lost."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    worker, app = Worker(tmp_path, settings, "--concurrency=1"), make(settings)
    with running(worker):
        eventually(lambda: len(runs(app)), 1)
        worker.signal(signal.SIGQUIT)
        worker.await_end()

    assert [row["name"] for row in runs(app)] == ["shop@localhost"]
