"""Real workers: one is told to stop while the database is away, one loses the process that was to send a body."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord, states

from acceptance.shop import make_app
from acceptance.worker import PATIENCE, TICK, Worker, running, settings_for
from chords.app import condemn, verdict
from chords.app import make_app as make_app_of_chords
from faults.keepers import equipped
from servers import Database
from servers.pool import on


def eventually(found: Callable[[], object]) -> bool:
    """Whether something becomes true, sooner or later."""
    deadline = time.monotonic() + PATIENCE
    while not found() and time.monotonic() < deadline:
        time.sleep(TICK)
    return bool(found())


@pytest.fixture
def apps() -> Iterator[list[Celery]]:
    """Apps to close when the test is over."""
    made: list[Celery] = []
    yield made
    for app in made:
        app.backend.database.engine.dispose()
        app.close()


@pytest.mark.parametrize(("database", "pool"), [("postgresql", "gevent"), ("mariadb", "solo")], indirect=["database"])
def test_told_to_stop_while_the_database_is_away(
    database: Database, pool: str, tmp_path: Path, apps: list[Celery]
) -> None:
    """It ends soon, and what its task has returned is stored by the worker that comes next."""
    more: dict[str, Any] = {"imports": ["faults.keepers"], "database_spool_dir": str(tmp_path / "spool")}
    settings = settings_for(tmp_path, f"sql+{database.url}", database_retry_window=10 * PATIENCE, **more)
    app = equipped(make_app(settings))
    apps.append(app)
    worker, go = Worker(tmp_path, settings, "--concurrency=1"), tmp_path / "go"
    with running(worker):
        result = app.tasks["until"].delay(str(go))
        assert eventually(lambda: result.state == states.STARTED)
        database.server.shutdown()
        go.touch()
        assert eventually(lambda: "trouble with the result database" in worker.log)
        worker.stop()
    assert "kept in the spool" in worker.log
    assert app.backend.spooled == 1
    database.server.restart()
    successor = Worker(tmp_path, settings, f"--pool={pool}", "--concurrency=1", name="successor")
    with running(successor):
        assert eventually(lambda: app.backend.spooled == 0)

    assert result.get(timeout=PATIENCE) == str(go)
    assert "stored 1 results of the spool" in successor.log


@on("postgresql")
def test_little_time_is_left_before_the_hard_limit(database: Database, tmp_path: Path, apps: list[Celery]) -> None:
    """A child that would be killed as it waits for the database keeps what its task has returned instead."""
    more: dict[str, Any] = {"imports": ["faults.keepers"], "database_spool_dir": str(tmp_path / "spool")}
    settings = settings_for(tmp_path, f"sql+{database.url}", database_retry_window=10 * PATIENCE, **more)
    app = equipped(make_app(settings))
    apps.append(app)
    worker, go = Worker(tmp_path, settings, "--concurrency=1"), tmp_path / "go"
    with running(worker):
        result = app.tasks["until"].apply_async((str(go),), time_limit=12)
        assert eventually(lambda: result.state == states.STARTED)
        database.server.shutdown()
        go.touch()
        assert eventually(lambda: "kept in the spool" in worker.log)
        database.server.restart()

        assert result.get(timeout=PATIENCE) == str(go)
    assert "Hard time limit" not in worker.log


@on("postgresql")
def test_the_elected_process_has_died(database: Database, tmp_path: Path, apps: list[Celery]) -> None:
    """Its worker notices when the lease is over, and sends the body."""
    careful = {"task_acks_late": True, "task_reject_on_worker_lost": True, "database_upkeep_interval": 0.2}
    mortal = {"database_url": database.url, "imports": ["chords.app"], "task_track_started": False}
    settings = settings_for(tmp_path, "chords.app:MortalBackend", **{**careful, **mortal})
    app, path = make_app_of_chords(settings), tmp_path / "body"
    apps.append(app)
    condemn(path, "before")
    with running(Worker(tmp_path, settings, "--concurrency=2")):
        number, note = app.tasks["number"].s, app.tasks["note"].s
        body = chord([number(1), number(2)])(note(path=str(path)))
        assert eventually(lambda: not verdict(path, "before").exists())
        database.execute("UPDATE celery_taskmeta_chords SET claimed_until = '2000-01-01 00:00:00'")

        assert body.get(timeout=PATIENCE) == [1, 2]
        assert path.read_text().splitlines() == [body.id]
