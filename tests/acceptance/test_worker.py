"""One real worker: what a task does is what its caller finds, in every pool and on every database."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, chain, chord, group, states
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult, GroupResult

from acceptance.conftest import MakeApp
from acceptance.worker import PATIENCE, TICK, Worker, running, settings_for
from servers import Database

POOLS = [("postgresql", "prefork"), ("mariadb", "prefork"), ("sqlite", "prefork")]
POOLS += [("postgresql", "threads"), ("sqlite", "solo"), ("mariadb", "threads")]


def found(result: AsyncResult) -> object:
    """What a task returned; raises what it raised."""
    return result.get(timeout=PATIENCE, interval=TICK)


def state_of(result: AsyncResult, *awaited: str) -> str:
    """The state of a task as soon as it is one of those awaited, or at the latest when patience ends."""
    deadline = time.monotonic() + PATIENCE
    while result.state not in awaited and time.monotonic() < deadline:
        time.sleep(TICK)
    return str(result.state)


def failure(result: AsyncResult) -> BaseException:
    """What a task raised."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  which one, says the test
        found(result)
    return raised.value


def check_success_and_failure(app: Celery) -> None:
    """A value; an exception with its traceback; retries."""
    assert found(app.tasks["add"].delay(2, 3)) == 5
    failed = app.tasks["fail"].delay("zu wenig")
    assert repr(failure(failed)) == "ValueError('zu wenig')"
    assert failed.state == states.FAILURE
    assert "raise ValueError(reason)" in failed.traceback
    assert found(app.tasks["retry"].delay(2)) == 2


def check_revocation(app: Celery) -> None:
    """A task that was revoked before it was sent is never run."""
    result = app.AsyncResult(str(uuid.uuid4()))
    replies = app.control.revoke(result.id, reply=True, timeout=PATIENCE, limit=1)
    assert len(replies) == 1
    app.tasks["add"].apply_async((1, 1), task_id=result.id)
    assert isinstance(failure(result), TaskRevokedError)
    assert result.state == states.REVOKED


def check_termination(app: Celery) -> None:
    """A task that is revoked while it runs is ended, where the pool can."""
    result = app.tasks["nap"].delay(PATIENCE)
    assert state_of(result, states.STARTED) == states.STARTED
    result.revoke(terminate=True)
    assert state_of(result, states.REVOKED) == states.REVOKED


def check_canvas(app: Celery) -> None:
    """Chain with parents, group that is saved and restored, chord."""
    add, total = app.tasks["add"], app.tasks["total"]
    last = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
    assert found(last) == 7
    assert [found(result) for result in (last.parent, last.parent.parent)] == [4, 2]
    some = group(add.s(n, n) for n in range(5)).apply_async()
    assert found(some) == [0, 2, 4, 6, 8]
    some.save()
    restored = GroupResult.restore(some.id, app=app)
    assert found(restored) == [0, 2, 4, 6, 8]
    restored.delete()
    assert GroupResult.restore(some.id, app=app) is None
    assert found(chord([add.s(n, n) for n in range(5)])(total.s())) == 20


def check_children_and_forget(app: Celery) -> None:
    """A task knows the tasks that it sent; a result that is forgotten is pending again."""
    parent = app.tasks["spawn"].delay(3)
    ids = found(parent)
    again = app.AsyncResult(parent.id)
    assert [child.id for child in again.children] == ids
    assert [found(child) for child in again.children] == [1, 2, 3]
    again.forget()
    assert app.AsyncResult(parent.id).state == states.PENDING
    assert not app.backend.task_result_exists(parent.id)


@pytest.fixture
def worker(tmp_path: Path, make: MakeApp, database: Database, pool: str) -> Iterator[tuple[Celery, Worker]]:
    """A worker with its caller's app."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    worker = Worker(tmp_path, settings, f"--pool={pool}", "--concurrency=2")
    with running(worker):
        yield make(settings), worker


@pytest.mark.parametrize(("database", "pool"), POOLS, indirect=["database"])
def test_what_a_task_does_is_what_its_caller_finds(
    worker: tuple[Celery, Worker], database: Database, pool: str
) -> None:
    app, process = worker
    check_success_and_failure(app)
    check_revocation(app)
    check_canvas(app)
    check_children_and_forget(app)
    if pool == "prefork":
        check_termination(app)
    assert process.complaints == []
    assert database.errors() == []
