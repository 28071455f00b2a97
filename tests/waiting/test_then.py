"""`then`: called back as soon as the result is there, although nobody waits."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from celery import states
from celery.result import AsyncResult

from celery_sql_results import DatabaseBackend
from servers.pool import on
from waiting.conftest import PATIENCE, everywhere, until_awaited
from waiting.writer import Writer


class Noted:
    """A callback that keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self._called = threading.Event()

    def __call__(self, *args: Any) -> None:
        self.calls.append(args)
        self._called.set()

    def wait(self) -> None:
        """Return when it was called."""
        assert self._called.wait(PATIENCE)


@pytest.fixture
def result(backend: DatabaseBackend) -> Callable[[str], AsyncResult]:
    """Makes result objects."""
    return backend.app.AsyncResult


Result = Callable[[str], AsyncResult]


def test_a_result(backend: DatabaseBackend, writer: Writer, result: Result) -> None:
    """The callback gets the result object, which holds the value."""
    called, awaited = Noted(), result("t")
    awaited.then(called)
    until_awaited(backend, "t")
    writer.store("t", 7)
    called.wait()

    assert [(found is awaited, found._cache["result"]) for (found,) in called.calls] == [(True, 7)]


def test_a_failure(backend: DatabaseBackend, writer: Writer, result: Result) -> None:
    """Is ready as well, as with Redis."""
    called, awaited = Noted(), result("t")
    awaited.then(called)
    until_awaited(backend, "t")
    writer.store("t", "no", states.FAILURE)
    called.wait()

    assert [found.state for (found,) in called.calls] == [states.FAILURE]


def test_what_is_ready_already(writer: Writer, result: Result) -> None:
    """Is called back at once."""
    writer.store("t", 7)
    called = Noted()
    result("t").then(called)
    called.wait()


@everywhere
def test_a_group(backend: DatabaseBackend, writer: Writer, result: Result) -> None:
    """With members of a nested one, when the last of them is ready and not before."""
    inner = backend.app.GroupResult("inner", [result("b"), result("c")])
    outer = backend.app.GroupResult("outer", [result("a"), inner])
    called, first = Noted(), Noted()
    outer.then(called)
    outer.results[0].then(first)
    until_awaited(backend, *"abc")
    writer.store_all([(task_id, task_id, states.SUCCESS) for task_id in "ab"])
    first.wait()
    early = list(called.calls)
    writer.store("c", "c")
    called.wait()

    assert early == []
    assert [found.id for (found,) in called.calls] == ["outer"]
    assert outer.get(timeout=PATIENCE) == ["a", ["b", "c"]]


@on("sqlite")
def test_a_callback_that_raises(
    backend: DatabaseBackend, writer: Writer, result: Result, caplog: pytest.LogCaptureFixture
) -> None:
    """Is logged; others are called all the same, and waits go on."""

    def bad(_result: object) -> None:
        raise KeyError("mine")

    called = Noted()
    bad_one, good_one = result("bad"), result("good")
    bad_one.then(bad)
    good_one.then(called)
    writer.store_all([(task_id, 1, states.SUCCESS) for task_id in ("bad", "good")])
    called.wait()
    writer.store("t", 1)

    assert result("t").get(timeout=PATIENCE) == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "a callback of result bad failed"
    ]


@on("sqlite")
def test_a_callback_that_wants_to_end_the_program(backend: DatabaseBackend, writer: Writer, result: Result) -> None:
    """Ends nothing but itself: the thread that calls it serves all waits."""
    called = Noted()

    def leave(found: object) -> None:
        called(found)
        sys.exit()

    bad, late = result("bad"), result("late")
    bad.then(leave)
    until_awaited(backend, "bad")
    writer.store("bad", 1)
    called.wait()
    awaited = result("t")
    writer.store("t", 1)

    assert awaited.get(timeout=PATIENCE) == 1
    late.then(later := Noted())
    until_awaited(backend, "late")
    writer.store("late", 1)
    later.wait()


@on("sqlite")
def test_a_callback_that_waits(backend: DatabaseBackend, writer: Writer, result: Result) -> None:
    """Would wait for its own thread: it is told so. For what is there it may ask."""
    errors: list[BaseException] = []
    called, after = Noted(), Noted()

    def wait(found: object) -> None:
        assert result("there").get(timeout=PATIENCE) == 1
        try:
            result("missing").get(timeout=PATIENCE)
        except RuntimeError as error:
            errors.append(error)
        called(found)

    writer.store("there", 1)
    first, second = result("t"), result("after")
    first.then(wait)
    second.then(after)
    until_awaited(backend, "t", "after")
    writer.store_all([(task_id, 1, states.SUCCESS) for task_id in ("t", "after")])
    called.wait()
    after.wait()

    assert len(errors) == 1


def test_two_results_of_one_task(backend: DatabaseBackend, writer: Writer, result: Result) -> None:
    """Both are fulfilled, so a set of them is ready."""
    twice = backend.app.ResultSet([result("t"), result("t")])
    twice.then(called := Noted())
    until_awaited(backend, "t")
    writer.store("t", 1)
    called.wait()
