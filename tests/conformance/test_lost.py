"""Lost tasks: they began in a run of a worker that is gone. No other is ever taken for lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery, chord, states
from celery.exceptions import WorkerLostError
from celery.result import AsyncResult

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from celery_sql_results.rows import LostRows
from celery_sql_results.worker import Heart, LostTasks, Told
from conformance.test_workers import run
from servers import Database
from servers.pool import on
from support import Backends, request

MINUTE = timedelta(minutes=1)
#: How long a worker is silent before it is taken for dead.
AFTER = 10 * MINUTE
#: Seconds until a result must be there.
LONG = 20


class Scene:
    """A database with workers and their tasks; times are minutes ago."""

    def __init__(self, backend: DatabaseBackend) -> None:
        self.backend, self.now = backend, utc_now()

    def ago(self, minutes: float) -> datetime:
        """A time."""
        return self.now - minutes * MINUTE

    def worker(self, began: float, seen: float, name: str = "w@host", ended: bool = False, skew: float = 0) -> None:
        """One run of a worker. Its host's clock is ahead by so many minutes of ``skew``."""
        rows, database, workers = self.backend.database.rows.workers, self.backend.database, self.backend.models.workers
        assert rows is not None
        run_id = f"{name} {began}"
        rows.seen(run(name, run_id, date_started=self.ago(began - skew), clock=self.ago(seen - skew)))
        aged = {"date_seen": database.impl.now(-seen * MINUTE)}
        aged |= {"date_ended": database.impl.now(-seen * MINUTE)} if ended else {}
        with database.impl.connect(database.engine) as connection:
            connection.execute(sa.update(workers).where(workers.c.run_id == run_id).values(aged))

    def task(self, began: float, task_id: str = "t", worker: str = "w@host", state: str = states.STARTED) -> None:
        """A task, as its worker has stored it."""
        task, database = self.backend.models.task, self.backend.database
        self.backend.store_result(task_id, None, state, request=request(task_id, hostname=worker))
        with database.impl.connect(database.engine) as connection:
            change = sa.update(task).where(task.c.task_id == task_id).values(date_started=self.ago(began))
            connection.execute(change)

    @property
    def lost(self) -> list[str]:
        """The ids of tasks that are lost."""
        return sorted(each.task_id for each in LostRows(self.backend.database.rows.tasks).lost(AFTER))


@pytest.fixture
def scene(backend: DatabaseBackend) -> Scene:
    """On every database."""
    return Scene(backend)


#: Runs of a worker, when a task began, and whether that is lost.
CASES: dict[str, tuple[list[dict[str, Any]], float, bool]] = {
    "silent": ([{"began": 60, "seen": 20}], 30, True),
    "silent, but not for long": ([{"began": 60, "seen": 5}], 30, False),
    "there": ([{"began": 60, "seen": 0}], 30, False),
    "started anew": ([{"began": 20, "seen": 0}], 30, True),
    "started anew, its first run is known": ([{"began": 60, "seen": 25}, {"began": 20, "seen": 0}], 30, True),
    "started anew just now": ([{"began": 60, "seen": 20}, {"began": 5, "seen": 0}], 30, False),
    "began in the run that is there": ([{"began": 60, "seen": 25}, {"began": 20, "seen": 0}], 15, False),
    "ended as it should": ([{"began": 60, "seen": 20, "ended": True}], 30, True),
    "ended just now": ([{"began": 60, "seen": 1, "ended": True}], 30, False),
    "two of one name are there": ([{"began": 60, "seen": 0}, {"began": 20, "seen": 0}], 30, False),
    "no worker is known": ([], 30, False),
    "another is gone": ([{"began": 60, "seen": 20, "name": "v@host"}], 30, False),
    "an older release runs after it was killed": ([{"began": 60, "seen": 20}], 15, False),
    "an older release runs after it has ended": ([{"began": 60, "seen": 20, "ended": True}], 19.9, False),
    "began after it was seen last": ([{"began": 60, "seen": 20}], 19.9, True),
    "its clock is ahead by a day": ([{"began": 60, "seen": 20, "skew": 1440}], 30 - 1440, True),
    "its clock is behind by a day": ([{"began": 60, "seen": 20, "skew": -1440}], 30 + 1440, True),
    "it is there, and its clock is behind": ([{"began": 60, "seen": 0, "skew": -1440}], 30 + 1440, False),
    "it is there, and its clock is ahead": ([{"began": 60, "seen": 0, "skew": 1440}], 30 - 1440, False),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_lost(scene: Scene, case: str) -> None:
    """Never where the worker may be alive, or nobody knows."""
    runs, began, is_lost = CASES[case]
    for each in runs:
        scene.worker(**each)
    scene.task(began)

    assert scene.lost == (["t"] if is_lost else [])


@pytest.mark.parametrize("state", [states.SUCCESS, states.FAILURE, states.RETRY, states.RECEIVED, "WAITING"])
def test_other_states_are_not_lost(scene: Scene, state: str) -> None:
    """A broker has the message of a task that is retried; what a state of the user's means, nobody knows."""
    scene.worker(60, 20)
    scene.task(30, state=state)

    assert scene.lost == []


def test_a_task_that_nobody_has_recorded(scene: Scene) -> None:
    """As by Celery's own backend, or with `database_record_tasks` off: it has no worker."""
    scene.worker(60, 20)
    scene.backend.store_result("t", None, states.STARTED)

    assert scene.lost == []


def test_many_workers_and_tasks(scene: Scene) -> None:
    """What is found says of which worker, since when, and why; a limit is obeyed."""
    for number in range(60):
        scene.worker(60, 20 if number % 2 else 0, f"w{number}")
        scene.task(30, f"t{number:02}", f"w{number}")
    found = LostRows(scene.backend.database.rows.tasks)
    first = found.lost(AFTER)[0]

    assert scene.lost == [f"t{number:02}" for number in range(1, 60, 2)]
    assert len(found.lost(AFTER, limit=7)) == 7
    assert (first.name, first.worker) == ("shop.pay", f"w{int(first.task_id[1:])}")
    assert first.date_started == scene.ago(30)
    assert f"worker {first.worker} was last seen at" in first.why


def test_rows_that_somebody_else_has_written(scene: Scene, database: Database) -> None:
    """Of a worker that has no times, nothing is known."""
    scene.worker(60, 20)
    database.execute("UPDATE celery_taskmeta_workers SET clock = NULL")
    scene.task(30)

    assert scene.lost == []


# -- ending them ---------------------------------------------------------------------------------------------------


def healthy(backend: DatabaseBackend) -> Heart:
    """That of another worker, which has just said that it is alive."""
    consumer = type("Consumer", (), {"hostname": "other@host", "app": backend.app, "pool": None})
    heart = Heart(backend.database, lambda _, operation: operation(), Told.by(consumer, int), None)
    heart.beat()
    return heart


def ending(backend: DatabaseBackend, heart: Heart | None = None, watched: float = 0) -> LostTasks:
    """What a worker does, without waiting for others."""

    def do(_name: str, operation: Callable[[], Any]) -> Any:
        return operation()

    outcome = backend._services._failure
    return LostTasks(backend.database, do, outcome, heart or healthy(backend), AFTER, watched)


def test_a_lost_task_fails(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Its error says what was found. That is told once, and happens once."""
    scene.worker(60, 20)
    scene.task(30)
    end = ending(scene.backend)
    found = [end(), end()]
    result = AsyncResult("t", app=scene.backend.app)

    assert (found, result.state) == ([1, 0], states.FAILURE)
    with pytest.raises(WorkerLostError, match=r"worker w@host was last seen at .* UTC, 600 s ago or more"):
        result.get(timeout=LONG)
    assert result.traceback.startswith("celery.exceptions.WorkerLostError: the task is lost: it began at ")
    assert abs(result.date_done - utc_now()) < 60 * MINUTE
    assert [message.partition(":")[0] for message in caplog.messages] == ["task t (shop.pay) is lost, and has failed"]


def test_what_is_known_of_a_lost_task_stays(scene: Scene) -> None:
    """Its worker, and when it began."""
    scene.worker(60, 20)
    scene.task(30)
    before = scene.backend.recorded("t")
    ending(scene.backend)()

    assert scene.backend.recorded("t") == before


def test_a_worker_that_was_cut_off_and_lives(scene: Scene) -> None:
    """What it returns replaces the failure."""
    scene.worker(60, 20)
    scene.task(30)
    ending(scene.backend)()
    scene.backend.store_result("t", None, states.STARTED, request=request("t", hostname="w@host"))
    failed = scene.backend.get_state("t")
    scene.backend.store_result("t", 42, states.SUCCESS, request=request("t", hostname="w@host"))

    assert (failed, scene.backend.get_result("t")) == (states.FAILURE, 42)


@pytest.mark.parametrize("meanwhile", ["done", "redelivered", "begun again"])
def test_what_becomes_of_a_task_meanwhile(scene: Scene, meanwhile: str) -> None:
    """Between the look and the end, it is done, or runs elsewhere, or again: that is left alone."""
    scene.worker(60, 20)
    scene.task(30)
    rows = LostRows(scene.backend.database.rows.tasks)
    [lost] = rows.lost(AFTER)
    if meanwhile == "done":
        scene.task(30, state=states.SUCCESS)
    else:
        scene.task(0, worker="v@host" if meanwhile == "redelivered" else "w@host")
    expected = scene.backend.get_state("t")

    assert rows.end(lost, scene.backend._services._failure(WorkerLostError("lost"), "lost")) is False
    assert scene.backend.get_state("t") == expected


def test_after_an_outage_of_the_database(scene: Scene) -> None:
    """All have been silent for long. They are given time to say that they are alive."""
    scene.worker(60, 20)
    scene.worker(60, 20, "v@host")
    scene.task(30, "gone")
    scene.task(30, "alive", "v@host")
    end = ending(scene.backend, watched=0.5)
    first = end()
    scene.worker(60, 0, "v@host")
    deadline, ended = time.monotonic() + LONG, 0
    while not ended and time.monotonic() < deadline:
        ended = end()
        time.sleep(0.05)

    assert (first, ended) == (0, 1)
    assert [scene.backend.get_state(task_id) for task_id in ("gone", "alive")] == [states.FAILURE, states.STARTED]


def test_who_cannot_say_that_it_is_alive_judges_nobody(scene: Scene) -> None:
    """It may be cut off itself, or the database have been away for all."""
    scene.worker(60, 20)
    scene.task(30)
    consumer = type("Consumer", (), {"hostname": "other@host", "app": scene.backend.app, "pool": None})
    silent = Heart(scene.backend.database, lambda _, operation: operation(), Told.by(consumer, int), None)
    end = ending(scene.backend, silent)
    before = end()
    silent.beat()

    assert (before, end()) == (0, 1)


@on("postgresql", "mariadb", "sqlite")
def test_what_was_looked_at_is_not_looked_at_again(database: Database, backends: Backends) -> None:
    """Without an index, that would read the whole table each time."""
    seen: list[str] = []

    def listen(engine: sa.Engine) -> None:
        sa.event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))

    scene = Scene(backends(database_engine_callback=listen))
    scene.worker(60, 20)
    scene.task(30)
    end = ending(scene.backend)
    rounds = []
    for _ in range(3):
        seen.clear()
        end()
        rounds.append(len([statement for statement in seen if "celery_taskmeta_workers" not in statement]))
    scene.worker(60, 15)
    seen.clear()
    end()

    assert rounds == [2 if database.kind != "postgresql" else 3, 0, 0]
    assert len([statement for statement in seen if "celery_taskmeta_workers" not in statement]) == 1


def test_who_waits_is_woken(scene: Scene) -> None:
    """As by any outcome."""
    scene.worker(60, 20)
    scene.task(30)
    later = threading.Timer(0.5, ending(scene.backend))
    later.start()
    with pytest.raises(WorkerLostError):
        AsyncResult("t", app=scene.backend.app).get(timeout=LONG)
    later.join()


def echo(value: Any) -> Any:
    """Return what it is given."""
    return value


@on("postgresql", "mariadb", "sqlite")
def test_a_chord_whose_part_is_lost(scene: Scene) -> None:
    """It ends as failed, and whoever waits for its body learns why."""
    app: Celery = scene.backend.app
    part, body = (app.task(name=name)(echo) for name in ("part", "body"))
    result = chord([part.s(1), part.s(2)])(body.s())
    done, lost = result.parent.results
    group_id = result.parent.id
    of_part = {"group": group_id, "chord": {**body.s(), "options": {"task_id": result.id}}, "group_index": 0}
    scene.backend.mark_as_done(done.id, 1, request=request(done.id, **of_part))
    scene.task(30, lost.id)
    scene.worker(60, 20)
    before = scene.backend.sweep_chords(), result.state
    ending(scene.backend)()
    ended = scene.backend.sweep_chords()

    assert (before, ended) == ((0, states.PENDING), 1)
    with pytest.raises(Exception, match="worker w@host was last seen"):
        result.get(timeout=LONG)


def test_old_tables(scene: Scene, database: Database, backends: Backends) -> None:
    """Without the columns that tell when a task began, and where, nothing is lost."""
    if database.kind == "portable":
        pytest.skip("its name is known to nobody, as is how it drops a column")
    database.execute("UPDATE celery_taskmeta_version SET version_num = '0099'")
    database.execute("ALTER TABLE celery_taskmeta DROP date_started")
    backend = backends(database_engine_options={"pool_size": 4})
    scene = Scene(backend)
    scene.worker(60, 20)
    backend.store_result("t", None, states.STARTED, request=request("t", hostname="w@host"))

    assert scene.lost == []
