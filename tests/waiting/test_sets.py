"""Many results at once: `join_native`, `iter_native` and `get_many`, while another process stores them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from celery import states
from celery.backends.cache import CacheBackend
from celery.exceptions import TimeoutError
from celery.result import AsyncResult, GroupResult, ResultSet

from celery_sql_results import DatabaseBackend
from servers.pool import on
from waiting.conftest import PATIENCE, Aside, awaited, everywhere, until, until_awaited
from waiting.writer import Writer

anywhere = on("sqlite")


def results(backend: DatabaseBackend, ids: str) -> list[AsyncResult]:
    """The result objects of some ids of one letter."""
    return [backend.app.AsyncResult(task_id) for task_id in ids]


def group(backend: DatabaseBackend, members: list[Any], group_id: str = "g") -> GroupResult:
    """A group of results."""
    return backend.app.GroupResult(group_id, members)


def successes(ids: str) -> list[tuple[str, str, str]]:
    """What to store, so that each task's value is its id."""
    return [(task_id, task_id, states.SUCCESS) for task_id in ids]


@everywhere
def test_the_order_is_that_of_the_set(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Whichever is ready first."""
    values = aside(group(backend, results(backend, "abcd")).get, timeout=PATIENCE)
    until_awaited(backend, *"abcd")
    writer.store_all(successes("dbca"))

    assert values.result() == ["a", "b", "c", "d"]


def test_results_are_yielded_as_they_come(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Each while the others are still missing."""
    seen: list[str] = []
    arrived = threading.Semaphore(0)

    def iterate() -> None:
        for task_id, _meta in group(backend, results(backend, "abc")).iter_native(timeout=PATIENCE):
            seen.append(task_id)
            arrived.release()

    done = aside(iterate)
    for task_id in "bca":
        until_awaited(backend, task_id)
        writer.store(task_id, 1)
        assert arrived.acquire(timeout=PATIENCE)
    done.result()

    assert seen == ["b", "c", "a"]


def test_a_nested_group(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Its values are a list in the list."""
    inner = group(backend, results(backend, "bc"), "inner")
    values = aside(group(backend, [*results(backend, "a"), inner, *results(backend, "d")]).get, timeout=PATIENCE)
    writer.store_all(successes("dcba"))

    assert values.result() == ["a", ["b", "c"], "d"]


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_timeout_in_a_nested_group(backend: DatabaseBackend, writer: Writer, aside: Aside, timeout: float) -> None:
    """Is a timeout of the whole."""
    writer.store_all(successes("ab"))
    inner = group(backend, results(backend, "bc"), "inner")
    values = aside(group(backend, [*results(backend, "a"), inner]).get, timeout=timeout)

    try:
        with pytest.raises(TimeoutError):
            values.result(PATIENCE)
    finally:
        writer.store("c", "c")  # or the thread would never end


def test_an_error_in_a_nested_group(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Is raised although those after it are missing."""
    inner = group(backend, results(backend, "bcd"), "inner")
    raised = aside(group(backend, [inner, *results(backend, "a")]).get, timeout=PATIENCE)
    until_awaited(backend, *"abcd")
    writer.store("c", "no", states.FAILURE)
    writer.store("b", "b")

    with pytest.raises(ValueError, match="no"):
        raised.result()


@anywhere
def test_an_error_in_a_nested_group_that_is_to_be_returned(backend: DatabaseBackend, writer: Writer) -> None:
    """Ends no wait; the timeout does."""
    writer.store("b", "no", states.FAILURE)
    inner = group(backend, results(backend, "bc"), "inner")
    with pytest.raises(TimeoutError):
        group(backend, [inner]).get(timeout=0.1, propagate=False)

    writer.store("c", "c")
    ((error, value),) = group(backend, [inner]).get(timeout=PATIENCE, propagate=False)
    assert (str(error), value) == ("no", "c")


@anywhere
def test_a_task_before_one_in_a_nested_group_fails(backend: DatabaseBackend, writer: Writer) -> None:
    """Its error is raised, for the other one will never run."""
    writer.store("a", "no", states.FAILURE)
    after = backend.app.AsyncResult("b", parent=backend.app.AsyncResult("a"))
    with pytest.raises(ValueError, match="no"):
        group(backend, [group(backend, [after], "inner")]).get(timeout=PATIENCE, interval=0.01)


def test_nested_groups_are_awaited_together(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """With one timeout, `on_message` for each, and a group as soon as it is ready."""
    seen: list[str] = []
    messages: list[str] = []
    first, second = (group(backend, results(backend, ids), f"of {ids}") for ids in ("ab", "bc"))
    outer = group(backend, [first, second, *results(backend, "bd")], "outer")

    def iterate() -> None:
        found = outer.iter_native(timeout=PATIENCE, on_message=lambda meta: messages.append(meta["task_id"]))
        seen.extend(member_id for member_id, _found in found)

    done = aside(iterate)
    for task_id in "acbd":
        until_awaited(backend, task_id)
        writer.store(task_id, task_id)
        until(lambda: task_id not in awaited(backend))  # noqa: B023  called at once
    done.result()

    assert (seen, messages) == (["of ab", "of bc", "b", "d"], ["a", "c", "b", "d"])
    assert outer.get(timeout=0) == [["a", "b"], ["b", "c"], "b", "d"]


def test_an_error_of_a_member(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Is raised although others are missing, or stands in the list."""
    raised = aside(group(backend, results(backend, "abc")).get, timeout=PATIENCE)
    until_awaited(backend, *"abc")
    writer.store("b", "no", states.FAILURE)
    with pytest.raises(ValueError, match="no"):
        raised.result()

    writer.store_all(successes("ac"))
    returned = group(backend, results(backend, "abc")).get(timeout=PATIENCE, propagate=False)
    assert [str(value) for value in returned] == ["a", "no", "c"]


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_timeout(backend: DatabaseBackend, writer: Writer, timeout: float) -> None:
    """If any is missing."""
    writer.store("a", 1)
    with pytest.raises(TimeoutError):
        group(backend, results(backend, "ab")).get(timeout=timeout)


def test_callback_and_messages(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """With a callback, the values go there, and every state of every member to `on_message`."""
    values: list[tuple[str, object]] = []
    messages: list[tuple[str, str]] = []
    begun = threading.Event()

    def note(meta: dict[str, Any]) -> None:
        messages.append((meta["task_id"], meta["status"]))
        begun.set()

    joined = aside(
        group(backend, results(backend, "ab")).join_native,
        timeout=PATIENCE,
        callback=lambda *args: values.append(args),
        on_message=note,
    )
    until_awaited(backend, *"ab")
    writer.store("a", None, states.STARTED)
    assert begun.wait(PATIENCE)
    writer.store_all(successes("ab"))

    assert joined.result() is None
    assert sorted(values) == [("a", "a"), ("b", "b")]
    assert sorted(messages) == [("a", "STARTED"), ("a", "SUCCESS"), ("b", "SUCCESS")]


def test_on_interval(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Called again and again while nothing comes, as often as `interval` says."""
    called = threading.Semaphore(0)
    values = aside(
        group(backend, results(backend, "ab")).get, timeout=PATIENCE, interval=0.01, on_interval=called.release
    )
    for _ in range(3):
        assert called.acquire(timeout=PATIENCE)
    writer.store_all(successes("ab"))

    assert values.result() == ["a", "b"]


def test_one_task_twice_in_a_set(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Both of its results are ready, and nobody waits for a second message."""
    twice = results(backend, "aab")
    some = ResultSet(twice, app=backend.app)
    found = aside(lambda: [task_id for task_id, _meta in some.iter_native(timeout=PATIENCE)])
    until_awaited(backend, *"ab")
    writer.store_all(successes("ab"))

    assert sorted(found.result()) == ["a", "a", "b"]
    assert [result._cache["result"] for result in twice] == ["a", "a", "b"]


@anywhere
def test_what_is_cached_is_not_asked_for(backend: DatabaseBackend, writer: Writer) -> None:
    """By the result objects themselves."""
    writer.store_all(successes("ab"))
    some = group(backend, results(backend, "ab"))
    values = [some.get(timeout=PATIENCE)]
    backend.database.rows.tasks.forget("a")
    values.append(some.get(timeout=0))

    assert values == [["a", "b"], ["a", "b"]]


@anywhere
def test_a_set_of_nothing(backend: DatabaseBackend) -> None:
    """Is ready."""
    assert group(backend, []).join_native(timeout=0) == []


@everywhere
def test_get_many(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """What is there first, then what comes."""
    writer.store("a", 1)
    found = aside(lambda: [task_id for task_id, _meta in backend.get_many(iter("aabc"), timeout=PATIENCE)])
    until_awaited(backend, *"bc")
    writer.store("c", 1)
    until(lambda: "c" not in awaited(backend))
    writer.store("b", "no", states.FAILURE)

    assert found.result() == ["a", "c", "b"]


def test_get_many_ends_after_some_intervals(backend: DatabaseBackend, writer: Writer) -> None:
    """Without an error; with a timeout, with one."""
    writer.store("a", 1)

    assert [task_id for task_id, _ in backend.get_many("ab", interval=0.01, max_iterations=3)] == ["a"]
    with pytest.raises(TimeoutError):
        list(backend.get_many("ab", timeout=0.05))


@pytest.mark.parametrize(
    ("timeout", "max_iterations", "raises"),
    [(0.02, 1000, True), (1000, 3, False), (0, 1, True), (0.02, 1, False), (None, 3, False)],
)
def test_get_many_ends_with_whichever_limit_is_first(
    backend: DatabaseBackend, timeout: float | None, max_iterations: int, raises: bool
) -> None:
    """Whether that is an error depends on which."""
    found = backend.get_many("a", timeout=timeout, interval=0.01, max_iterations=max_iterations)

    if raises:
        with pytest.raises(TimeoutError):
            list(found)
    else:
        assert list(found) == []


@anywhere
def test_a_set_without_any_of_our_results_is_joined_as_celery_does(backend: DatabaseBackend) -> None:
    """Each member by itself, in a set that our app has made, and with the same arguments."""
    memory = CacheBackend(app=backend.app, url="memory://")
    for task_id in "ab":
        memory.store_result(task_id, task_id.upper(), states.SUCCESS)
    theirs = backend.app.ResultSet([backend.app.AsyncResult(task_id, backend=memory) for task_id in "ab"])
    called: list[tuple[str, str]] = []

    assert theirs.join(timeout=PATIENCE, callback=lambda *of: called.append(of)) == []
    assert called == [("a", "A"), ("b", "B")]
    assert theirs.join(timeout=PATIENCE) == ["A", "B"]
