"""What a set of results comes to, whoever stores its members, however often one is in it, and of whichever class it is.

Celery's own `join`, which asks each member by itself, is the yardstick.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celery.result
import pytest
from celery import states
from celery.backends.cache import CacheBackend
from celery.exceptions import TimeoutError
from celery.result import EagerResult, denied_join_result

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import on
from support import Backends, Statements, app_on
from waiting.conftest import PATIENCE, Aside, awaited, until_awaited
from waiting.test_group_states import selects

anywhere = on("sqlite")
databases = on("postgresql", "mariadb", "sqlite")

#: Makes a set of results; makes a result of an id.
MakeSet = Callable[..., Any]
MakeResult = Callable[..., Any]


@pytest.fixture(params=["made by the app", "Celery's own"])
def classes(request: pytest.FixtureRequest, backend: DatabaseBackend) -> Any:
    """Where the classes of results come from."""
    return backend.app if request.param == "made by the app" else celery.result


@pytest.fixture
def result(classes: Any, backend: DatabaseBackend) -> MakeResult:
    """Makes results."""
    return lambda task_id, **more: classes.AsyncResult(task_id, app=backend.app, **more)


@pytest.fixture
def group(classes: Any, result: MakeResult, backend: DatabaseBackend) -> MakeSet:
    """Makes groups, of ids or results; the id of one is made of those of its members."""

    def make(*members: Any) -> Any:
        results = [result(member) if isinstance(member, str) else member for member in members]
        return classes.GroupResult("".join(str(each.id) for each in results), results, app=backend.app)

    return make


@pytest.fixture
def other(backends: Backends, tmp_path: Path) -> DatabaseBackend:
    """A backend on a database of its own."""
    return backends(f"sqlite:///{tmp_path}/other.db")


def store(backend: Any, task_ids: str, state: str = states.SUCCESS) -> None:
    """Store an outcome of tasks whose ids are one letter; their values are the ids in capitals."""
    for task_id in task_ids:
        value: Any = ValueError(task_id) if state in states.EXCEPTION_STATES else task_id.upper()
        backend.store_result(task_id, value, state)


# -- one task twice ------------------------------------------------------------------------------------------------


def test_one_task_twice(backend: DatabaseBackend, group: MakeSet) -> None:
    """Has its value at each of its places."""
    store(backend, "ab")
    assert group("a", "b", "a").get(timeout=PATIENCE) == ["A", "B", "A"]


def test_one_result_object_twice(backend: DatabaseBackend, group: MakeSet, result: MakeResult) -> None:
    """The same, also when it is known already."""
    store(backend, "a")
    one = result("a")
    found = [group(one, one).get(timeout=PATIENCE) for _ in range(2)]

    assert found == [["A", "A"], ["A", "A"]]


def test_one_task_twice_is_called_back_twice(backend: DatabaseBackend, group: MakeSet) -> None:
    """As a member of the set."""
    store(backend, "ab")
    seen: list[tuple[str, str]] = []
    returned = group("a", "b", "a").get(timeout=PATIENCE, callback=lambda *each: seen.append(each))

    assert (returned, seen) == (None, [("a", "A"), ("b", "B"), ("a", "A")])


def test_one_task_in_several_sets(backend: DatabaseBackend, group: MakeSet, aside: Aside) -> None:
    """And one set twice."""
    inner = group("a", "b")
    values = aside(group(inner, "a", group("b", "b"), inner).get, timeout=PATIENCE)
    until_awaited(backend, *"ab")
    store(backend, "ba")

    assert values.result() == [["A", "B"], "A", ["B", "B"], ["A", "B"]]


def test_one_failure_twice(backend: DatabaseBackend, group: MakeSet) -> None:
    """Is returned twice."""
    store(backend, "a", states.FAILURE)
    values = group("a", "a").get(timeout=PATIENCE, propagate=False)

    assert [repr(value) for value in values] == ["ValueError('a')"] * 2


# -- sets in sets --------------------------------------------------------------------------------------------------


def test_errors_in_nested_sets_are_returned(backend: DatabaseBackend, group: MakeSet) -> None:
    """At their places, if nothing is to be raised; else the first is raised."""
    store(backend, "ac")
    store(backend, "bd", states.FAILURE)
    outer = group(group(group("a", "b"), "c"), "d")

    assert repr(outer.get(timeout=PATIENCE, propagate=False)) == "[[['A', ValueError('b')], 'C'], ValueError('d')]"
    with pytest.raises(ValueError, match="b"):
        outer.get(timeout=PATIENCE)


def test_an_error_in_a_nested_set_is_raised_at_once(backend: DatabaseBackend, group: MakeSet, aside: Aside) -> None:
    """Whatever is missing before it."""
    raised = aside(group("a", group("b", "c")).get, timeout=PATIENCE)
    until_awaited(backend, *"abc")
    store(backend, "c", states.FAILURE)

    with pytest.raises(ValueError, match="c"):
        raised.result()


def test_the_first_error_is_that_of_the_set(backend: DatabaseBackend, group: MakeSet) -> None:
    """In the order of its members, whatever failed first."""
    store(backend, "cba", states.FAILURE)
    with pytest.raises(ValueError, match="b"):
        group(group("b"), "a", "c").get(timeout=PATIENCE)


@anywhere
def test_a_set_of_nothing_in_a_set(backend: DatabaseBackend, group: MakeSet) -> None:
    """Is an empty list."""
    store(backend, "a")
    assert group(group(), "a", group(group())).join_native(timeout=PATIENCE) == [[], "A", [[]]]


@anywhere
def test_inside_a_task(backend: DatabaseBackend, group: MakeSet) -> None:
    """Waiting is refused, unless it is asked for: then for the whole tree."""
    store(backend, "abc")
    with denied_join_result():
        with pytest.raises(RuntimeError, match="Never call"):
            group("a").get(timeout=PATIENCE)
        found = group("a", group("b", group("c"))).get(timeout=PATIENCE, disable_sync_subtasks=False)

    assert found == ["A", ["B", ["C"]]]


@anywhere
def test_a_set_without_an_id(backend: DatabaseBackend, classes: Any, result: MakeResult) -> None:
    """Is a member like another: its callback gets no id."""
    store(backend, "ab")
    seen: list[tuple[str | None, Any]] = []
    inner = classes.ResultSet([result("a")], app=backend.app)
    outer = classes.ResultSet([inner, result("b")], app=backend.app)
    found = outer.join_native(timeout=PATIENCE)
    outer.join_native(timeout=PATIENCE, callback=lambda *each: seen.append(each))

    assert (found, seen) == ([["A"], "B"], [(None, ["A"]), ("b", "B")])


# -- several backends ----------------------------------------------------------------------------------------------


def test_members_of_two_backends(
    backend: DatabaseBackend, other: DatabaseBackend, group: MakeSet, result: MakeResult, aside: Aside
) -> None:
    """Each comes from where it is stored, whichever is first."""
    there = [result(task_id, backend=other) for task_id in "bd"]
    values = aside(group("a", there[0], group("c", there[1])).get, timeout=PATIENCE)
    until_awaited(backend, *"ac")
    until_awaited(other, *"bd")
    store(other, "db")
    store(backend, "ca")

    assert values.result() == ["A", "B", ["C", "D"]]


def test_members_of_two_backends_are_awaited_together(
    backend: DatabaseBackend, other: DatabaseBackend, group: MakeSet, result: MakeResult, aside: Aside
) -> None:
    """What happens to one is known while the other is missing."""
    seen: list[tuple[str, str]] = []
    messages: list[str] = []
    arrived = threading.Semaphore(0)

    def note(*each: Any) -> None:
        seen.append(each)
        arrived.release()

    joined = aside(
        group("a", result("b", backend=other), "c").join_native,
        timeout=PATIENCE,
        callback=note,
        on_message=lambda meta: messages.append(meta["task_id"]),
    )
    for where, task_id in ((other, "b"), (backend, "a")):
        until_awaited(where, task_id)
        store(where, task_id)
        assert arrived.acquire(timeout=PATIENCE)
    store(backend, "c", states.FAILURE)

    with pytest.raises(ValueError, match="c"):
        joined.result()
    assert (seen, messages) == ([("b", "B"), ("a", "A")], ["b", "a", "c"])


@anywhere
@pytest.mark.parametrize("timeout", [0, 0.1])
def test_a_timeout_of_two_backends(
    backend: DatabaseBackend, other: DatabaseBackend, group: MakeSet, result: MakeResult, timeout: float
) -> None:
    """Is one for all, and leaves no wait behind."""
    store(backend, "a")
    with pytest.raises(TimeoutError):
        group("a", result("b", backend=other)).get(timeout=timeout)
    assert (awaited(backend), awaited(other)) == (set(), set())


@anywhere
def test_members_of_another_kind_of_backend(backend: DatabaseBackend, group: MakeSet, result: MakeResult) -> None:
    """Their own backend is asked, in what is left of the time."""
    memory = CacheBackend(app=backend.app, url="memory://")
    store(memory, "m")
    store(memory, "f", states.FAILURE)
    store(backend, "a")
    there, failed, missing = (result(task_id, backend=memory) for task_id in "mfx")

    assert group(there, "a", group("a", there)).get(timeout=PATIENCE) == ["M", "A", ["A", "M"]]
    assert repr(group("a", failed).get(timeout=PATIENCE, propagate=False)) == "['A', ValueError('f')]"
    with pytest.raises(ValueError, match="f"):
        group("a", failed).get(timeout=PATIENCE)
    with pytest.raises(TimeoutError):
        group("a", missing).get(timeout=0.1, interval=0.01)


@anywhere
def test_members_that_nobody_stores(backend: DatabaseBackend, group: MakeSet, result: MakeResult) -> None:
    """One that was run at once, and one whose result is ignored."""
    store(backend, "a")
    ignored = result("i")
    ignored.ignored = True
    eager, failed = EagerResult("e", "E", states.SUCCESS), EagerResult("f", ValueError("f"), states.FAILURE)

    assert group("a", eager, ignored, group(eager)).join_native(timeout=PATIENCE) == ["A", "E", None, ["E"]]
    assert repr(group("a", failed).join_native(timeout=PATIENCE, propagate=False)) == "['A', ValueError('f')]"
    with pytest.raises(ValueError, match="f"):
        group("a", failed).join_native(timeout=PATIENCE)


@anywhere
def test_an_app_whose_own_backend_is_another(database: Database, backends: Backends) -> None:
    """Sets without any of our results are joined as before."""
    ours, app = backends(), app_on("memory://", "cache")
    store(ours, "a")
    store(app.backend, "m")
    own = celery.result.AsyncResult("a", app=app, backend=ours)
    theirs = celery.result.AsyncResult("m", app=app)
    sets = [celery.result.ResultSet(results, app=app) for results in ([own, theirs], [theirs, own], [theirs])]

    assert [some.get(timeout=PATIENCE) for some in sets] == [["A", "M"], ["M", "A"], ["M"]]


# -- tasks before the members --------------------------------------------------------------------------------------


def test_a_task_before_a_member_has_failed(backend: DatabaseBackend, group: MakeSet, result: MakeResult) -> None:
    """The member will never run: the error is raised by whoever looks, however little time he has."""
    store(backend, "a", states.FAILURE)
    for members in ([result("b", parent=result("a"))], [group(result("b", parent=result("a")))]):
        with pytest.raises(ValueError, match="a"):
            group("c", *members).get(timeout=0)


def test_a_task_before_a_member_fails(
    backend: DatabaseBackend, group: MakeSet, result: MakeResult, aside: Aside
) -> None:
    """Meanwhile."""
    raised = aside(group("c", result("b", parent=result("a"))).get, timeout=PATIENCE, interval=0.01)
    until_awaited(backend, *"bc")
    store(backend, "a", states.FAILURE)

    with pytest.raises(ValueError, match="a"):
        raised.result()


def test_the_error_of_a_task_before_a_member_is_raised_instead_of_its_own(
    backend: DatabaseBackend, group: MakeSet, result: MakeResult, aside: Aside
) -> None:
    """Whichever came first."""
    raised = aside(group(result("b", parent=result("a"))).get, timeout=PATIENCE, interval=1000)
    until_awaited(backend, "b")
    store(backend, "ab", states.FAILURE)

    with pytest.raises(ValueError, match="a"):
        raised.result()


@anywhere
def test_what_came_before_is_not_followed_if_nothing_is_to_be_raised(
    backend: DatabaseBackend, group: MakeSet, result: MakeResult
) -> None:
    """Nor by whoever only iterates."""
    store(backend, "a", states.FAILURE)
    some = group(result("b", parent=result("a")))

    with pytest.raises(TimeoutError):
        some.get(timeout=0.05, interval=0.01, propagate=False)
    with pytest.raises(TimeoutError):
        list(some.iter_native(timeout=0.05, interval=0.01))


# -- what it costs, and what it leaves -----------------------------------------------------------------------------


@databases
def test_each_backend_is_asked_once(
    statements: Statements, backend: DatabaseBackend, other: DatabaseBackend, group: MakeSet, result: MakeResult
) -> None:
    """However many members there are, and however deep."""
    store(backend, "abc")
    store(other, "xy")
    sets = [group(*"abc", group(*"ab"), *"aa", *(result(task_id, backend=other) for task_id in "xy")) for _ in range(2)]
    sets[0].get(timeout=PATIENCE)  # so that all tables are known
    with statements() as seen:
        sets[1].get(timeout=PATIENCE)

    asked = 2 if "sqlite" in backend.settings.url else 1  # the other one is on SQLite as well
    assert selects(seen) == asked


@databases
def test_join_asks_once_as_well(statements: Statements, backend: DatabaseBackend) -> None:
    """That of the classes which the app makes."""
    store(backend, "abc")
    app, seen = backend.app, []
    some = app.GroupResult("g", [app.AsyncResult(task_id) for task_id in "abca"])
    with statements() as asked:
        values = some.join(timeout=PATIENCE)

    assert (values, selects(asked)) == (["A", "B", "C", "A"], 1)
    assert some.join(timeout=PATIENCE, callback=lambda *each: seen.append(each)) == []
    assert seen == [("a", "A"), ("b", "B"), ("c", "C"), ("a", "A")]


@anywhere
def test_what_a_callback_raises_ends_the_wait(backend: DatabaseBackend, group: MakeSet) -> None:
    """At once, though the error is kept with all that it knows of."""
    store(backend, "a")

    def give_up(*_: object) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough") as kept:
        group("a", "b").get(timeout=PATIENCE, callback=give_up)
    assert (awaited(backend), kept.value.args) == (set(), ("enough",))


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@anywhere
@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("how", ["get", "get_many"])
def test_threads_that_share_a_small_cache(backends: Backends, aside: Aside, how: str) -> None:
    """What one of them needs, another may drop at any time."""
    backend = backends(result_cache_max=1)
    store(backend, "ab")

    def ask(task_id: str) -> set[str]:
        if how == "get":
            return {backend.app.AsyncResult(task_id).get(timeout=PATIENCE) for _ in range(400)}
        return {meta["result"] for _ in range(400) for _id, meta in backend.get_many([task_id], timeout=PATIENCE)}

    found = [aside(ask, task_id) for task_id in "abab"]
    assert [each.result() for each in found] == [{"A"}, {"B"}, {"A"}, {"B"}]
