"""Celery's contract of a result backend, for groups."""

from __future__ import annotations

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult

from celery_sql_results import DatabaseBackend, TaskIdTooLong
from celery_sql_results.models import utc_now
from support import SERIALIZERS, Backends


def group(backend: DatabaseBackend, *members: str, parent: str | None = None) -> GroupResult:
    """A group called `g`."""
    results = [AsyncResult(member, app=backend.app) for member in members]
    above = AsyncResult(parent, app=backend.app) if parent else None
    return GroupResult("g", results, parent=above, app=backend.app)


def test_save_and_restore(backends: Backends) -> None:
    """The same members in the same order, and the same parent, with every serializer."""
    for serializer in SERIALIZERS:
        backend = backends(result_serializer=serializer, accept_content=[serializer])
        saved = group(backend, "a", "b", parent="p")
        saved.save()
        found = GroupResult.restore("g", app=backend.app)

        assert (found, found.parent) == (saved, saved.parent)


def test_restored_members_have_results(backend: DatabaseBackend) -> None:
    """On the app that restored them."""
    group(backend, "a", "b").save()
    for member in "ab":
        backend.store_result(member, member, states.SUCCESS)

    assert GroupResult.restore("g", app=backend.app).get(timeout=5) == ["a", "b"]


def test_a_group_of_groups(backend: DatabaseBackend) -> None:
    """However deep."""
    inner = GroupResult("inner", [AsyncResult("a", app=backend.app)], app=backend.app)
    outer = GroupResult("g", [inner, AsyncResult("b", app=backend.app)], app=backend.app)
    outer.save()

    assert GroupResult.restore("g", app=backend.app) == outer


def test_saving_again_replaces(backend: DatabaseBackend) -> None:
    """No duplicate key, one row."""
    group(backend, "a").save()
    group(backend, "a", "b").save()

    assert GroupResult.restore("g", app=backend.app) == group(backend, "a", "b")


def test_meta(backend: DatabaseBackend) -> None:
    """The keys that Celery's own has."""
    before = utc_now()
    group(backend, "a").save()
    meta = backend.get_group_meta("g", cache=False)

    assert (set(meta), meta["taskset_id"]) == ({"taskset_id", "result", "date_done"}, "g")
    assert before <= meta["date_done"] <= utc_now()


def test_unknown_group(backend: DatabaseBackend) -> None:
    """Is nothing, and not cached as that."""
    before = GroupResult.restore("g", app=backend.app)
    group(backend, "a").save()

    assert (before, GroupResult.restore("g", app=backend.app)) == (None, group(backend, "a"))


def test_delete(backend: DatabaseBackend) -> None:
    """The group is gone, its members stay; a second time is fine."""
    backend.store_result("a", 1, states.SUCCESS)
    saved = group(backend, "a")
    saved.save()
    for _ in range(2):
        saved.delete()

    assert (GroupResult.restore("g", app=backend.app), backend.get_result("a")) == (None, 1)


def test_reload(backends: Backends) -> None:
    """`reload_group_result` asks again."""
    backend = backends(result_cache_max=10)
    group(backend, "a").save()
    backend.get_group_meta("g")
    backend._save_group("g", group(backend, "a", "b"))
    cached = backend.restore_group("g")
    backend.reload_group_result("g")

    assert [len(cached), len(backend.restore_group("g"))] == [1, 2]


def test_an_id_that_is_too_long(backend: DatabaseBackend) -> None:
    """Is one clear error."""
    with pytest.raises(TaskIdTooLong, match=r"the group id 'gggg.*… has 156 characters, but the column holds 155"):
        GroupResult("g" * 156, [], app=backend.app).save()


def test_1500_members(backend: DatabaseBackend) -> None:
    """More than 64 KB, which is where a BLOB of MariaDB ends."""
    saved = group(backend, *(f"{number:036}" for number in range(1_500)))
    saved.save()

    assert GroupResult.restore("g", app=backend.app) == saved
