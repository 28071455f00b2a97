"""`AsyncResult.get` of a result that another process stores later: Celery's contract, on every database."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from celery import states
from celery.exceptions import TaskRevokedError, TimeoutError
from celery.result import AsyncResult

from celery_sql_results import DatabaseBackend
from servers.pool import on
from support import Backends
from waiting.conftest import PATIENCE, Aside, awaited, everywhere, until, until_awaited, until_told
from waiting.writer import Writer

notified = on("postgresql", "psycopg2", "sqlite")
anywhere = on("sqlite")


def result_of(backend: DatabaseBackend, task_id: str = "t", **more: Any) -> AsyncResult:
    """The result object of a task."""
    return backend.app.AsyncResult(task_id, **more)


@everywhere
def test_a_result_that_is_stored_later(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """By another process, while this one waits."""
    value = aside(result_of(backend).get, timeout=PATIENCE)
    until_awaited(backend, "t")
    writer.store("t", {"sum": 3})

    assert value.result() == {"sum": 3}


def test_a_wait_without_end(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """`timeout=None`, which is the default."""
    value = aside(result_of(backend).get)
    until_awaited(backend, "t")
    writer.store("t", 1)

    assert value.result(PATIENCE) == 1


@notified
@pytest.mark.usefixtures("told_only")
def test_a_result_is_made_known(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Nobody looks of his own accord here: the notification alone brings it, once and again."""
    for task_id in ("first", "second"):
        value = aside(result_of(backend, task_id).get, timeout=PATIENCE)
        until_told(backend, task_id)
        writer.store(task_id, task_id)
        assert value.result() == task_id


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_timeout(backend: DatabaseBackend, writer: Writer, timeout: float) -> None:
    """Celery's own error; the same result can be waited for again."""
    result = result_of(backend)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            result.get(timeout=timeout)
    writer.store("t", 1)

    assert result.get(timeout=PATIENCE) == 1


def test_a_timeout_of_0_finds_what_is_there(backend: DatabaseBackend, writer: Writer) -> None:
    """It looks once; a task that has begun is not ready."""
    writer.store("t", 1)
    writer.store("begun", None, states.STARTED)

    assert result_of(backend).get(timeout=0) == 1
    with pytest.raises(TimeoutError):
        result_of(backend, "begun").get(timeout=0)


@everywhere
@pytest.mark.parametrize(("state", "error"), [(states.FAILURE, ValueError), (states.REVOKED, TaskRevokedError)])
def test_an_error_is_raised(
    backend: DatabaseBackend, writer: Writer, aside: Aside, state: str, error: type[Exception]
) -> None:
    """Or returned, if `propagate` is off."""
    raised = aside(result_of(backend).get, timeout=PATIENCE)
    returned = aside(result_of(backend).get, timeout=PATIENCE, propagate=False)
    until_awaited(backend, "t")
    writer.store("t", "no", state)

    with pytest.raises(error, match="no"):
        raised.result()
    assert isinstance(returned.result(), error)


def test_callback(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """With id and value, before `get` returns."""
    seen: list[tuple[str, object]] = []
    value = aside(result_of(backend).get, timeout=PATIENCE, callback=lambda *args: seen.append(args))
    until_awaited(backend, "t")
    writer.store("t", 5)

    assert (value.result(), seen) == (5, [("t", 5)])


@everywhere
def test_on_message_sees_each_state(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """In order, the final one last; a state of the task's own with changing meta is news each time."""
    steps = [(None, states.STARTED), ({"done": 1}, "PROGRESS"), ({"done": 2}, "PROGRESS"), ("yes", states.SUCCESS)]
    seen: list[tuple[object, str]] = []
    arrived = threading.Semaphore(0)

    def note(meta: dict[str, Any]) -> None:
        seen.append((meta["result"], meta["status"]))
        arrived.release()

    value = aside(result_of(backend).get, timeout=PATIENCE, on_message=note)
    until_awaited(backend, "t")
    for result, state in steps:
        writer.store("t", result, state)
        assert arrived.acquire(timeout=PATIENCE)

    assert (value.result(), seen) == ("yes", steps)


def test_on_interval(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Called while nothing comes. Celery makes it a promise here, which is kept once; see also the test of sets."""
    called = threading.Event()
    value = aside(result_of(backend).get, timeout=PATIENCE, interval=0.01, on_interval=called.set)
    assert called.wait(PATIENCE)
    writer.store("t", 1)

    assert value.result() == 1


@anywhere
def test_what_on_interval_raises_ends_the_wait(backend: DatabaseBackend) -> None:
    """And what a callback raises; the next wait is not disturbed."""

    def give_up() -> None:
        raise KeyError("enough")

    for _ in range(2):
        with pytest.raises(KeyError, match="enough"):
            result_of(backend).get(timeout=PATIENCE, interval=0.01, on_interval=give_up)
    assert awaited(backend) == set()


def test_the_error_of_a_parent_is_raised(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Of one that fails while its child is awaited: the child will never run."""
    parent = result_of(backend, "parent")
    value = aside(result_of(backend, "child", parent=parent).get, timeout=PATIENCE, interval=0.01)
    until_awaited(backend, "child")
    writer.store("parent", "poor", states.FAILURE)

    with pytest.raises(ValueError, match="poor"):
        value.result()


@anywhere
def test_parents_are_not_followed_if_asked_not_to(backend: DatabaseBackend, writer: Writer) -> None:
    """Nor where nothing is to be raised."""
    writer.store("parent", "poor", states.FAILURE)
    child = result_of(backend, "child", parent=result_of(backend, "parent"))

    for how in ({"follow_parents": False}, {"propagate": False}):
        with pytest.raises(TimeoutError):
            child.get(timeout=0.05, interval=0.01, **how)
    with pytest.raises(ValueError, match="poor"):
        child.get(timeout=PATIENCE)


@anywhere
def test_what_was_got_is_not_asked_for_again(backend: DatabaseBackend, writer: Writer) -> None:
    """By the same result object."""
    writer.store("t", 1)
    result = result_of(backend)
    values = [result.get(timeout=PATIENCE)]
    backend.forget("t")
    values += [result.get(timeout=PATIENCE), result.get(timeout=0)]

    assert values == [1, 1, 1]


@anywhere
def test_a_cached_result(backends: Backends, writer: Writer) -> None:
    """By any result object of a backend that has a cache; failures are not cached, they may become successes."""
    backend = backends(result_cache_max=10)
    writer.store("t", 1)
    writer.store("f", "no", states.FAILURE)
    values = [result_of(backend, task_id).get(timeout=PATIENCE, propagate=False) for task_id in "tf"]
    backend.database.rows.tasks.forget("t")
    writer.store("f", 2)

    assert (values[0], str(values[1])) == (1, "no")
    assert [result_of(backend, task_id).get(timeout=PATIENCE) for task_id in "tf"] == [1, 2]


@anywhere
def test_an_ignored_result(backend: DatabaseBackend) -> None:
    """Is `None`, at once: nobody will store it."""
    result = result_of(backend)
    result.ignored = True

    assert result.get() is None


def test_wait_for(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """The backend's own: the meta, also of a failure."""
    with pytest.raises(TimeoutError):
        backend.wait_for("t", timeout=0.01)
    meta = aside(backend.wait_for, "t", timeout=PATIENCE)
    until_awaited(backend, "t")
    writer.store("t", "no", states.FAILURE)

    assert (meta.result()["status"], str(meta.result()["result"])) == (states.FAILURE, "no")


@everywhere
def test_a_pool_of_one_connection(backends: Backends, writer: Writer, aside: Aside) -> None:
    """Whoever waits does not keep it from others."""
    backend = backends(database_engine_options={"pool_size": 1, "max_overflow": 0, "pool_timeout": 5})
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_awaited(backend, "t")
    until(lambda: backend.looker.looks > 0)
    states_then = backend.states_of(["t"])
    writer.store("t", 1)

    assert (value.result(), states_then) == (1, {})
