"""Many results in one question."""

from __future__ import annotations

from itertools import islice

import pytest
from celery import states
from celery.exceptions import TimeoutError
from celery.result import AsyncResult, GroupResult, ResultSet

from celery_sql_results import DatabaseBackend
from support import Backends

IDS = ["a", "b", "c"]


@pytest.fixture
def stored(backend: DatabaseBackend) -> DatabaseBackend:
    """With three successful tasks whose results are their ids."""
    for task_id in IDS:
        backend.store_result(task_id, task_id, states.SUCCESS)
    return backend


def results(backend: DatabaseBackend, ids: list[str]) -> list[AsyncResult]:
    """The result objects of some ids."""
    return [AsyncResult(task_id, app=backend.app) for task_id in ids]


def test_get_many(stored: DatabaseBackend) -> None:
    """Id and meta of each, in whatever order."""
    found = {task_id: meta["result"] for task_id, meta in stored.get_many(IDS)}

    assert found == {task_id: task_id for task_id in IDS}


def test_get_many_of_nothing(stored: DatabaseBackend) -> None:
    """Returns at once."""
    assert list(stored.get_many([])) == []


def test_get_many_looks_once_and_gives_up(stored: DatabaseBackend) -> None:
    """With a timeout of 0, what is ready comes before the error."""
    answers = stored.get_many([*IDS, "missing"], timeout=0)
    found = [task_id for task_id, _ in islice(answers, 3)]

    assert sorted(found) == IDS
    with pytest.raises(TimeoutError):
        next(answers)


def test_get_many_stops_after_max_iterations(stored: DatabaseBackend) -> None:
    """Without an error, as Celery's own."""
    found = [task_id for task_id, _ in stored.get_many(["a", "missing"], interval=0.001, max_iterations=3)]

    assert found == ["a"]


def test_get_many_waits_for_what_comes(stored: DatabaseBackend) -> None:
    """`on_interval` is called before each pause, `on_message` with each meta."""
    seen: list[str] = []
    late = iter(["late"])

    def store_late() -> None:
        for task_id in late:
            stored.store_result(task_id, task_id, states.SUCCESS)

    def note(meta: dict[str, str]) -> None:
        seen.append(meta["result"])

    found = [
        task_id
        for task_id, _ in stored.get_many(["a", "late"], interval=0.001, on_interval=store_late, on_message=note)
    ]

    assert (found, seen) == (["a", "late"], ["a", "late"])


def test_get_many_passes_over_the_unfinished(stored: DatabaseBackend) -> None:
    """Unless it is asked for those."""
    stored.mark_as_started("d")
    ready = [task_id for task_id, _ in stored.get_many(["a", "d"], interval=0, max_iterations=1)]
    started = [task_id for task_id, _ in stored.get_many(["d"], READY_STATES=frozenset({"STARTED"}), max_iterations=1)]

    assert (ready, started) == (["a"], ["d"])


def test_get_many_uses_the_cache(stored: DatabaseBackend, backends: Backends) -> None:
    """What is known to be successful is not asked for again."""
    caching = backends(result_cache_max=10)
    list(caching.get_many(IDS))
    for task_id in IDS:
        stored.forget(task_id)

    assert sorted(task_id for task_id, _ in caching.get_many(IDS, timeout=0)) == IDS


def test_get_many_takes_an_iterator_with_duplicates(stored: DatabaseBackend) -> None:
    """Each once."""
    assert [task_id for task_id, _ in stored.get_many(iter(["a", "a"]))] == ["a"]


def test_iter_native(stored: DatabaseBackend) -> None:
    """What `ResultSet.iter_native` stands on."""
    found = {task_id: meta["result"] for task_id, meta in ResultSet(results(stored, IDS), app=stored.app).iter_native()}

    assert found == {task_id: task_id for task_id in IDS}


def test_join_native(stored: DatabaseBackend) -> None:
    """In the order of the group, through `get` too."""
    assert stored.supports_native_join is True
    found = GroupResult("g", results(stored, ["c", "a", "b"]), app=stored.app)

    assert (found.join_native(timeout=5), found.get(timeout=5)) == (["c", "a", "b"], ["c", "a", "b"])


def test_join_native_raises_the_error_of_a_member(stored: DatabaseBackend) -> None:
    """Or returns it, if asked not to propagate."""
    stored.mark_as_failure("d", ValueError("no"))
    group = GroupResult("g", results(stored, ["a", "d"]), app=stored.app)

    assert [repr(value) for value in group.join_native(timeout=5, propagate=False)] == ["'a'", "ValueError('no')"]
    with pytest.raises(ValueError, match="no"):
        group.join_native(timeout=5)


def test_a_thousand_and_more(backend: DatabaseBackend) -> None:
    """More ids than one statement may carry on some databases."""
    ids = [f"id-{number}" for number in range(2_500)]
    for task_id in ids[::50]:
        backend.store_result(task_id, task_id, states.SUCCESS)
    found = [task_id for task_id, _ in backend.get_many(ids, max_iterations=1)]

    assert sorted(found) == sorted(ids[::50])
