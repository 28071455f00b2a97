"""Workers that are asked to end, that end at once, and that are killed: what was acknowledged is stored."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, states
from celery.exceptions import (
    BackendGetMetaError,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    TimeoutError,
    WorkerLostError,
)
from celery.result import AsyncResult

from acceptance.worker import PATIENCE, TICK, Settings, Worker, running, settings_for
from faults.tasks import make_app, released
from servers import Database, Redis
from servers.pool import on

#: The connections of others to the database.
CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'servers'"
)
CHILDREN = 4
#: The children, those that are just going, the worker itself, a caller and the thread with which it listens.
CONNECTED = 2 * CHILDREN + 3
#: A broker that delivers again, to a worker that starts, what another was given that long ago and did not acknowledge.
#: Shorter than any start takes: the next such look is minutes later.
IMPATIENT = {"broker_transport_options": {"visibility_timeout": 0.1}}
CAREFUL = {"task_acks_late": True, "task_reject_on_worker_lost": True}

with_servers = on("postgresql", "mariadb")
anywhere = on("postgresql", "mariadb", "sqlite")


@dataclass(frozen=True)
class Post:
    """A caller, and what its workers need to know."""

    app: Celery
    folder: Path
    settings: Settings

    def worker(self, *arguments: str, name: str = "first") -> Worker:
        """A worker with two children."""
        return Worker(self.folder, self.settings, "--concurrency=2", *arguments, name=name)

    def held(self, value: Any, task: str = "hold") -> tuple[AsyncResult, Path]:
        """Send a task that runs until it is released, and name the file in which it notes who runs it."""
        path = self.folder / f"{task}-{value}"
        return self.app.tasks[task].delay(str(path), value), path


#: Makes a caller with some settings.
Posts = Callable[..., Post]


@pytest.fixture
def posts(database: Database, redis: Redis, tmp_path: Path) -> Iterator[Posts]:
    """Makes callers whose workers do one task at a time, and acknowledge it when its result is stored."""
    made: list[Celery] = []

    def make(**settings: Any) -> Post:
        own = {"broker_url": redis.url(), "broker_transport_options": {}, "imports": ["faults.tasks"]}
        complete = settings_for(tmp_path, f"sql+{database.url}", **{**own, **CAREFUL, **settings})
        made.append(make_app(complete))
        return Post(made[-1], tmp_path, complete)

    yield make
    for app in made:
        app.backend.database.engine.dispose()
        app.close()


def until(condition: Callable[[], object], what: str) -> None:
    """Return when a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(TICK)


def runs(path: Path, worker: Worker | None = None) -> list[int]:
    """The processes that have run a task, of one worker or of all."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.split()[1]) for line in lines if worker is None or line.startswith(f"{worker.name} ")]


def found(result: AsyncResult) -> Any:
    """What a task returned; raises what it raised."""
    return result.get(timeout=PATIENCE)


def rows(database: Database, result: AsyncResult) -> list[tuple[str]]:
    """What is stored of a task: the state of each row."""
    return database.execute(f"SELECT status FROM celery_taskmeta WHERE task_id = '{result.id}'")


def check_a_killed_child(post: Post, database: Database) -> None:
    """In the middle of a task: one that is acknowledged late runs again, one that was acknowledged early has failed."""
    late, late_path = post.held("late")
    early, early_path = post.held("early", "hold_early")
    until(lambda: runs(late_path) and runs(early_path), "the start of the tasks")
    os.kill(runs(late_path)[0], signal.SIGKILL)
    until(lambda: len(runs(late_path)) == 2, "the second run")
    os.kill(runs(early_path)[0], signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        found(early)
    released(late_path).touch()
    assert found(late) == "late"
    assert len(runs(early_path)) == 1
    assert (rows(database, late), rows(database, early)) == ([("SUCCESS",)], [("FAILURE",)])


def check_time_limits(post: Post) -> None:
    """The outcome is stored: by the task itself, or by the worker that has killed it."""
    nap = post.app.tasks["nap"]
    soft = nap.apply_async((PATIENCE,), soft_time_limit=0.5)
    hard = nap.apply_async((PATIENCE,), time_limit=0.5)
    with pytest.raises(SoftTimeLimitExceeded):
        found(soft)
    with pytest.raises(TimeLimitExceeded):
        found(hard)
    assert [result.state for result in (soft, hard)] == [states.FAILURE] * 2


def check_a_warm_end(post: Post, worker: Worker) -> None:
    """What runs is finished and stored; what has not begun stays in the broker."""
    result, path = post.held("warm")
    until(lambda: runs(path), "the start of the task")
    worker.ask_to_stop()
    until(lambda: "Warm shutdown" in worker.log, "the end")
    post.app.tasks["add"].apply_async((1, 1), task_id="too late")
    released(path).touch()
    assert worker.await_end() == 0
    assert (found(result), len(runs(path))) == ("warm", 1)
    assert post.app.AsyncResult("too late").state == states.PENDING


@anywhere
def test_killed_children_time_limits_and_a_warm_end(posts: Posts, database: Database) -> None:
    """Of one worker, which has no trouble with results."""
    post = posts()
    worker = post.worker()
    with running(worker):
        check_a_killed_child(post, database)
        check_time_limits(post)
        check_a_warm_end(post, worker)

    assert (worker.complaints, database.errors()) == ([], [])


def end_cold(worker: Worker, first: signal.Signals) -> None:
    """Tell a worker to drop what it does: by SIGQUIT, or by the second Ctrl-C."""
    worker.signal(first)
    if first == signal.SIGINT:
        until(lambda: "Hitting Ctrl+C again" in worker.log, "the first Ctrl-C")
        worker.signal(signal.SIGINT)
    worker.await_end()


@pytest.mark.parametrize(
    ("database", "by"),
    [("postgresql", signal.SIGQUIT), ("mariadb", signal.SIGINT), ("sqlite", signal.SIGQUIT)],
    indirect=["database"],
)
def test_a_cold_end_and_a_sudden_death(posts: Posts, database: Database, by: signal.Signals) -> None:
    """One task and three workers: the first is ended cold in the middle, the second is killed, the third finishes."""
    post = posts(**IMPATIENT)
    first, second, third = (post.worker(name=name) for name in ("first", "second", "third"))
    result, path = post.held("cold")
    with running(first):
        early, early_path = post.held("early", "hold_early")
        until(lambda: runs(path) and runs(early_path), "the start of the tasks")
        done = [post.app.tasks["add"].delay(number, 1) for number in range(3)]
        end_cold(first, by)
    with running(second):
        until(lambda: runs(path, second), "the run of the second")
        assert [found(one) for one in done] == [1, 2, 3]
        second.kill()
    with running(third):
        until(lambda: runs(path, third), "the run of the third")
        released(path).touch()
        assert found(result) == "cold"

    assert rows(database, result) == [("SUCCESS",)]
    assert early.state in {states.RETRY, states.FAILURE}  # it was acknowledged: whoever looks is told that it is over
    assert (third.complaints, database.errors()) == ([], [])


@on("postgresql")
def test_one_task_per_child(posts: Posts, database: Database) -> None:
    """100 tasks in 100 processes: all are stored and read, and each process takes its connection along."""
    post, seen = posts(), list[int]()
    worker = post.worker("--max-tasks-per-child=1", f"--concurrency={CHILDREN}")

    def connected() -> int:
        ((count,),) = database.execute(CONNECTIONS)
        seen.append(int(count))
        return seen[-1]

    with running(worker):
        sent = [post.app.tasks["add"].delay(number, 1) for number in range(100)]
        until(lambda: connected() and all(post.app.backend.states_of([one.id]) for one in sent[-2:]), "the last task")
        assert [found(one) for one in sent] == list(range(1, 101))
        until(lambda: connected() <= CONNECTED, "the end of the connections")

    assert max(seen) <= 2 * CONNECTED
    assert (worker.complaints, database.errors()) == ([], [])


@with_servers
def test_a_dead_database(posts: Posts, database: Database) -> None:
    """With few retries nobody hangs: a result is given up, callers are told, and the worker ends when asked."""
    post = posts(result_backend_max_retries=2, result_backend_base_sleep_between_retries_ms=1)
    worker = post.worker()
    with running(worker):
        result, path = post.held("lost")
        until(lambda: runs(path), "the start of the task")
        database.server.kill()
        released(path).touch()
        until(lambda: "given up" in worker.log, "the end of the retries")
        with pytest.raises(BackendGetMetaError):
            _ = result.state
        with pytest.raises(TimeoutError):
            result.get(timeout=0.2)
        worker.ask_to_stop()
        assert worker.await_end() == 0
