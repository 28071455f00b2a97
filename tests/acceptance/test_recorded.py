"""With the defaults, a row tells of each task that a worker has run: which, where, when, and what it belongs to."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group, states
from celery.exceptions import TimeLimitExceeded, WorkerLostError

from acceptance.conftest import MakeApp
from acceptance.test_worker import POOLS, failure, found
from acceptance.worker import PATIENCE, Worker, running, settings_for
from celery_sql_results.models import utc_now
from faults.load import until
from servers import Database
from servers.pool import on

WORKER = "shop@localhost"


def row(app: Celery, result: Any) -> dict[str, Any]:
    """What `AsyncResult` tells of a task, read anew."""
    fresh: Any = app.AsyncResult(result.id)
    names = ("name", "worker", "queue", "retries", "parent_id", "root_id", "group_id")
    times = ("date_queued", "date_started", "date_done")
    return {name: getattr(fresh, name) for name in (*names, *times)}


def check(told: dict[str, Any], since: datetime, **expected: Any) -> None:
    """The times are in order; the rest is as expected, or as of a task without relatives."""
    times = since, told.pop("date_queued"), told.pop("date_started"), told.pop("date_done"), utc_now()
    assert list(times) == sorted(times)
    alone = {"worker": WORKER, "queue": "celery", "retries": 0, "parent_id": None, "group_id": None}
    assert told == {**alone, **expected}


@pytest.fixture
def worker(tmp_path: Path, make: MakeApp, database: Database, pool: str) -> Iterator[tuple[Celery, Worker]]:
    """A worker with its caller's app, which know nothing but where results go."""
    settings = settings_for(tmp_path, f"sql+{database.url}", task_track_started=False)
    worker = Worker(tmp_path, settings, f"--pool={pool}", "--concurrency=2")
    with running(worker):
        yield make(settings), worker


def check_single_tasks(app: Celery) -> None:
    """One that succeeds, one that fails, and one that sends others."""
    since, tasks = utc_now(), app.tasks
    success, failed, parent = tasks["add"].delay(1, 1), tasks["fail"].delay("no"), tasks["spawn"].delay(1)
    (child,) = found(parent)
    found(app.AsyncResult(child))
    assert (found(success), type(failure(failed))) == (2, ValueError)
    check(row(app, success), since, name="add", root_id=success.id)
    check(row(app, failed), since, name="fail", root_id=failed.id)
    check(row(app, app.AsyncResult(child)), since, name="add", parent_id=parent.id, root_id=parent.id)


def check_canvas(app: Celery) -> None:
    """What stands in a chain, in a group, and at the end of a chord."""
    since, add, total = utc_now(), app.tasks["add"], app.tasks["total"]
    last = chain(add.s(1, 1), add.s(2)).apply_async()
    assert found(last) == 4
    first = last.parent
    check(row(app, last), since, name="add", parent_id=first.id, root_id=first.id)
    body = chord([add.s(n, n) for n in range(3)])(total.s())
    assert found(body) == 6
    for member in body.parent.results:
        told = row(app, member)
        assert (told["name"], told["group_id"]) == ("add", body.parent.id)
    told = row(app, body)
    assert (told["name"], told["worker"]) == ("total", WORKER)
    assert told["group_id"] in (body.parent.id, None)  # an older Celery does not tell
    assert since <= told["date_queued"] <= told["date_started"] <= told["date_done"]
    some = group(add.s(n, n) for n in range(2)).apply_async()
    found(some)
    assert {row(app, member)["group_id"] for member in some} == {some.id}


def check_retries(app: Celery) -> None:
    """It was sent when it was sent first, and began when it began last."""
    since = utc_now()
    result = app.tasks["retry"].delay(3)
    sent_until = utc_now()
    assert found(result) == 3
    told = row(app, result)
    assert since <= told["date_queued"] <= sent_until
    check(told, since, name="retry", retries=3, root_id=result.id)


def check_replaced(app: Celery, name: str, by: str, value: int) -> None:
    """A task that takes the place of another was sent when that was."""
    since = utc_now()
    result = app.tasks[name].delay(1, 1)
    sent_until = utc_now()
    assert found(result) == value
    told = row(app, result)
    assert (told["name"], since <= told["date_queued"] <= sent_until) == (by, True)


def check_headers(app: Celery) -> None:
    """A task that is sent with the headers of another was not sent when that was."""
    since = utc_now()
    parent = app.tasks["forward"].delay()
    child = app.AsyncResult(found(parent))
    found(child)
    check(row(app, child), since, name="add", parent_id=parent.id, root_id=parent.id)
    assert row(app, child)["date_queued"] >= row(app, parent)["date_started"]


def check_revoked(app: Celery) -> None:
    """It is known where that was found, and it did not begin."""
    result = app.AsyncResult(str(uuid.uuid4()))
    assert len(app.control.revoke(result.id, reply=True, timeout=PATIENCE, limit=1)) == 1
    since = utc_now()
    app.tasks["add"].apply_async((1, 1), task_id=result.id)
    until(lambda: row(app, result)["name"] is not None, "the worker has met it")  # revoked it is from the beginning
    told = row(app, result)
    assert (told["name"], told["worker"], told["queue"], told["root_id"]) == ("add", WORKER, "celery", result.id)
    assert (since <= told["date_queued"], told["date_started"]) == (True, None)


def check_killed(app: Celery) -> None:
    """Also of a task whose process was ended, by itself or for its time: the main process stores that."""
    since = utc_now()
    for result, error, name in (
        (app.tasks["die"].delay(), WorkerLostError, "die"),
        (app.tasks["nap"].apply_async((PATIENCE,), time_limit=1), TimeLimitExceeded, "nap"),
    ):
        assert type(failure(result)) is error
        check(row(app, result), since, name=name, root_id=result.id)


@pytest.mark.parametrize(("database", "pool"), POOLS, indirect=["database"])
def test_every_task_that_a_worker_has_run(worker: tuple[Celery, Worker], database: Database, pool: str) -> None:
    app, process = worker
    check_single_tasks(app)
    check_canvas(app)
    check_retries(app)
    check_replaced(app, "swap", "add", 2)
    check_replaced(app, "swap_for_two", "add", 3)
    check_replaced(app, "swap_for_many", "total", 4)
    check_headers(app)
    if pool == "prefork":
        check_killed(app)
    missing = "SELECT name FROM celery_taskmeta WHERE date_queued IS NULL OR date_started IS NULL OR worker IS NULL"
    assert database.execute(missing) == []
    check_revoked(app)
    assert process.complaints == []
    assert database.errors() == []
    process.kill()  # of a pool whose processes were killed, billiard may wait for ever for the lock of their queue


@on("postgresql")
def test_it_was_sent_by_somebody_else(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """Who has another backend does not say when; the rest is known."""
    settings = settings_for(tmp_path, f"sql+{database.url}", task_track_started=False)
    stranger = Celery("stranger", set_as_current=False)
    stranger.conf.update({**settings, "result_backend": None})
    with running(Worker(tmp_path, settings, "--pool=solo")):
        ours = make(settings)
        found(ours.tasks["add"].delay(1, 1))  # whose app is in the same process
        sent = stranger.send_task("add", (1, 1))
        assert ours.AsyncResult(sent.id).get(timeout=PATIENCE) == 2
    told = row(ours, sent)
    assert (told["name"], told["worker"], told["date_queued"]) == ("add", WORKER, None)
    assert told["date_started"] <= told["date_done"]


@on("postgresql")
def test_the_first_protocol(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """There headers are kept apart."""
    settings = settings_for(tmp_path, f"sql+{database.url}", task_track_started=False, task_protocol=1)
    with running(Worker(tmp_path, settings, "--pool=solo")):
        app, since = make(settings), utc_now()
        result = app.tasks["add"].delay(1, 1)
        assert found(result) == 2
    told = row(app, result)
    assert (told["name"], app.AsyncResult(result.id).state) == ("add", states.SUCCESS)
    assert since <= told["date_queued"] <= told["date_started"]
