"""Lost tasks, as real workers leave them behind: they are killed, frozen, and started again."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery, chord, states
from celery.exceptions import ChordError, WorkerLostError
from celery.result import AsyncResult

from acceptance.conftest import MakeApp
from acceptance.test_alive import eventually, runs
from acceptance.worker import PATIENCE, Worker, running, settings_for
from celery_sql_results.rows import LostRows
from celery_sql_results.rows.lost import MARGIN
from servers import Database
from servers.pool import on

#: Seconds that a worker must be silent: at least the longest time between two beats.
SILENT = timedelta(seconds=25)


def queue_of(worker: Worker) -> str:
    """The queue that only this worker takes tasks from."""
    return worker.name.partition("@")[0]


def begun_by(app: Celery, worker: Worker) -> AsyncResult:
    """A task of one worker, as soon as it runs."""
    result = app.tasks["nap"].apply_async((20,), queue=queue_of(worker))
    assert eventually(lambda: result.state, states.STARTED) == states.STARTED
    return result


def of_its_own(folder: Path, settings: dict[str, object], name: str, *arguments: str) -> Worker:
    """A worker with a queue that is called after it."""
    return Worker(folder, settings, f"--queues={name}", "--concurrency=2", *arguments, name=name)


@on("postgresql", "mariadb")
def test_a_worker_that_is_killed_and_one_that_is_frozen(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """What they were doing fails, for those who wait and for a chord. Who lives after all has the last word."""
    settings = dict(settings_for(tmp_path, f"sql+{database.url}", database_lost_after=60))
    killed, frozen, other = (of_its_own(tmp_path, settings, name) for name in ("killed", "frozen", "other"))
    app = make(settings)
    with running(killed, frozen):
        lost, cut_off = begun_by(app, killed), begun_by(app, frozen)
        parts = [app.tasks["add"].s(1, 1), app.tasks["nap"].s(PATIENCE)]
        total = app.tasks["total"].s().set(queue=queue_of(other))
        body = chord(part.set(queue=queue_of(killed)) for part in parts)(total)
        nap = body.parent.results[1]
        assert eventually(lambda: nap.state, states.STARTED) == states.STARTED
        killed.kill()
        frozen.signal_all(signal.SIGSTOP)
        eventually(lambda: len(runs(app)), 2)
        ago = "date_seen - INTERVAL '2 minutes'" if database.kind == "postgresql" else "date_seen - INTERVAL 2 MINUTE"
        database.execute(f"UPDATE celery_taskmeta_workers SET date_seen = {ago}")
        with running(other):
            alive = app.tasks["nap"].apply_async((PATIENCE,), queue=queue_of(other))
            for result in (lost, cut_off, nap):
                with pytest.raises(WorkerLostError, match=r"worker \w+@localhost was last seen at"):
                    result.get(timeout=PATIENCE)
            with pytest.raises((ChordError, WorkerLostError)):
                body.get(timeout=PATIENCE)
            state = alive.state
            other.kill()
        frozen.signal_all(signal.SIGCONT)
        assert eventually(lambda: app.AsyncResult(cut_off.id).state, states.SUCCESS) == states.SUCCESS

    assert state == states.STARTED
    assert other.log.count("is lost, and has failed: it began at") == 3


@on("postgresql", "sqlite")
def test_started_again_under_the_same_name(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """What the first run was doing is lost, what the second does is not."""
    settings = dict(settings_for(tmp_path, f"sql+{database.url}"))
    first, again, app = of_its_own(tmp_path, settings, "shop"), of_its_own(tmp_path, settings, "shop"), make(settings)

    def lost() -> list[str]:
        return [each.task_id for each in LostRows(app.backend.database.rows.tasks).lost(SILENT)]

    with running(first):
        left = begun_by(app, first)
        eventually(lambda: len(runs(app)), 1)
        first.kill()
    time.sleep(2 * MARGIN.total_seconds())  # what began less than that before the next run may be of that run
    with running(again):
        running_now = app.tasks["nap"].apply_async((PATIENCE,), queue=queue_of(again))
        assert eventually(lambda: running_now.state, states.STARTED) == states.STARTED
        before = lost()
        found = eventually(lost, [left.id])
        again.kill()

    assert (before, found) == ([], [left.id])
