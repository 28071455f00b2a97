"""`then`: called back as soon as the result is there, although nobody waits."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import states
from celery.result import AsyncResult

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import on
from waiting.conftest import PATIENCE, everywhere, until, until_awaited
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


# -- how it ends -----------------------------------------------------------------------------------------------------


def drop(_backend: DatabaseBackend, results: list[AsyncResult]) -> None:
    """Nobody has the results any more. A group and its members know each other, so a collector finds them."""
    results.clear()
    gc.collect()


def remove(backend: DatabaseBackend, results: list[AsyncResult]) -> None:
    """Celery's own name for it."""
    for each in results:
        backend.remove_pending_result(each)


def forget(_backend: DatabaseBackend, results: list[AsyncResult]) -> None:
    """Nobody wants to know."""
    for each in results:
        each.forget()


def watch(results: list[AsyncResult], called: Noted) -> None:
    """Be called back for each."""
    for each in results:
        each.then(called)


@everywhere
@pytest.mark.parametrize("end", [drop, remove, forget])
@pytest.mark.usefixtures("news")
def test_it_ends_with_its_results(
    database: Database, backend: DatabaseBackend, writer: Writer, end: Callable[..., None]
) -> None:
    """Nothing is asked for them any more, no row of a waiter is left, and nobody is called back."""
    called, others = Noted(), Noted()
    results = [backend.app.AsyncResult(f"t-{number}") for number in range(150)]
    watch(results, called)
    some = backend.app.GroupResult("g", [backend.app.AsyncResult(f"g-{number}") for number in range(3)])
    some.then(called)
    other = backend.app.AsyncResult("t-0")
    other.then(others)
    until_awaited(backend, *(f"t-{number}" for number in range(150)), "g-2")
    end(backend, results)
    end(backend, some.results)
    del some
    gc.collect()
    until(lambda: backend.looker.awaited() == ["t-0"], "the end of the others")
    if database.kind == "postgresql":
        left = "SELECT awaited_id FROM celery_taskmeta_waiters"
        until(lambda: database.execute(left) == [("t-0",)], "the end of their rows")
    writer.store_all([(f"t-{number}", 1, states.SUCCESS) for number in range(2)])
    others.wait()

    assert called.calls == []


@on("sqlite")
def test_a_result_that_was_removed_can_be_watched_again(
    backend: DatabaseBackend, writer: Writer, result: Result
) -> None:
    """And a result that is watched twice is fulfilled once, with both callbacks."""
    first, second, watched = Noted(), Noted(), result("t")
    watched.then(first)
    backend.remove_pending_result(watched)
    watched.then(second)
    watched.then(second)
    until_awaited(backend, "t")
    writer.store("t", 1)
    until(lambda: len(second.calls) == 2)

    assert len(first.calls) == 1


INTERRUPTED = """
import sys, time
from celery import states
from support import app_on

app = app_on(sys.argv[1])
app.backend.states_of(["warm"])
result = app.AsyncResult("t")

def leave(_result):
    raise KeyboardInterrupt

if sys.argv[2] == "ready":
    app.backend.store_result("t", 1, states.SUCCESS)
try:
    result.then(leave)
    app.backend.store_result("t", 1, states.SUCCESS)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize("when", ["ready", "later"])
def test_a_callback_that_interrupts(database: Database, when: str) -> None:
    """As Ctrl-C does: the main thread is interrupted, whichever thread has called it back."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, database.url, when],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=PATIENCE,
    )

    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")
