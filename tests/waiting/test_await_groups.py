"""What coroutines await beside one result: groups, whatever is ready first, each state of a task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult

from celery_sql_results import DatabaseBackend, aio
from celery_sql_results.errors import AwaitTimeout
from servers import Redis
from servers.pool import on
from support import app_on
from waiting.conftest import PATIENCE, everywhere
from waiting.loops import begun, beside, collect, group_of, in_a_loop, result_of, stored_later, until, until_awaited
from waiting.writer import Writer

anywhere = on("sqlite")
of_redis = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")  # by Celery's own backend


# -- groups ----------------------------------------------------------------------------------------------------------


@everywhere
def test_a_group(backend: DatabaseBackend, writer: Writer) -> None:
    """In its order, nested ones as lists, a task that is in it twice at both places."""
    group = group_of(backend, "b", group_of(backend, "c", "a"), "a")

    async def main() -> object:
        return await stored_later(backend, writer, group.aget(PATIENCE), ("a", 1), ("b", 2), ("c", 3))

    assert in_a_loop(main()) == [2, [3, 1], 1]


@everywhere
def test_a_group_of_many(backend: DatabaseBackend, writer: Writer) -> None:
    """More than leave rows for themselves."""
    ids = [f"t-{number}" for number in range(300)]

    async def main() -> object:
        wait = group_of(backend, *ids).aget()
        return await stored_later(backend, writer, wait, *((each, each) for each in ids))

    assert in_a_loop(main()) == ids


@everywhere
def test_the_first_error_of_a_group(backend: DatabaseBackend, writer: Writer) -> None:
    """Is raised whatever is missing; of several that are there, the first in the order of the group."""
    writer.store("z", "first", states.FAILURE)
    writer.store("a", "second", states.FAILURE)
    writer.store("m", 1)

    async def main() -> list[Any]:
        group = group_of(backend, "never", "m", "z", "a")
        with pytest.raises(ValueError, match="first"):
            await group
        some = group_of(backend, "m", group_of(backend, "z", "a"))
        return await some.aget(propagate=False)

    one, (two, three) = in_a_loop(main())

    assert (one, str(two), str(three), backend.looker.awaited()) == (1, "first", "second", [])


@anywhere
def test_an_empty_group(backend: DatabaseBackend) -> None:
    """Is there."""

    async def main() -> list[Any]:
        completed = [each async for each in aio.as_completed([group_of(backend)])]
        return [await group_of(backend), await group_of(backend, group_of(backend)), completed]

    assert in_a_loop(main()) == [[], [[]], []]


@anywhere
def test_celerys_own_group(backend: DatabaseBackend, writer: Writer) -> None:
    """By the function."""
    writer.store("a", 1)
    group = GroupResult("g", [AsyncResult("a", backend=backend, app=backend.app)])

    assert in_a_loop(aio.aget(group)) == [1]


@anywhere
def test_a_member_of_another_database(backend: DatabaseBackend, servers: Any, writer: Writer) -> None:
    """Is awaited together with the others."""
    with servers.database("sqlite") as other:
        app = app_on(other.url)
        with app:
            elsewhere = app.AsyncResult("there")
            group = group_of(backend, "here", elsewhere)

            async def main() -> object:
                task = asyncio.ensure_future(group.aget(PATIENCE))
                await until_awaited(backend, "here")
                await until_awaited(app.backend, "there")
                await beside(app.backend.store_result, "there", 2, states.SUCCESS)
                await beside(writer.store, "here", 1)
                return await task

            assert in_a_loop(main()) == [1, 2]


@anywhere
@of_redis
def test_a_member_in_another_kind_of_backend(backend: DatabaseBackend, redis: Redis, writer: Writer) -> None:
    """Is kept in a thread: its value, its error, a timeout; and a parent there counts."""
    other = app_on(None, result_backend_thread_safe=True)
    other.conf.result_backend = redis.url()
    writer.store("here", 1)

    async def main() -> list[Any]:
        both = group_of(backend, "here", other.AsyncResult("there"))
        with pytest.raises(AwaitTimeout):
            await both.aget(timeout=0.1)
        later = asyncio.ensure_future(both.aget(PATIENCE))
        await beside(other.backend.store_result, "there", 2, states.SUCCESS)
        await beside(other.backend.store_result, "bad", ValueError("no"), states.FAILURE)
        for failing in (other.AsyncResult("bad"), result_of(backend, "child", parent=other.AsyncResult("bad"))):
            with pytest.raises(ValueError, match="no"):
                await aio.aget(failing, timeout=PATIENCE)
        with pytest.raises(NotImplementedError, match="RedisBackend"):
            aio.watch(other.AsyncResult("there"))
        return await later

    values = in_a_loop(main())
    other.close()

    assert values == [1, 2]


@anywhere
def test_a_member_in_another_kind_of_backend_is_given_up(backend: DatabaseBackend, redis: Redis) -> None:
    """No thread waits for it any more: else the loop could not end."""
    other = app_on(None)
    other.conf.result_backend = redis.url()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(aio.aget(other.AsyncResult("never")), 0.1)

    in_a_loop(main())
    other.close()


# -- as completed ----------------------------------------------------------------------------------------------------


@everywhere
def test_as_completed(backend: DatabaseBackend, writer: Writer) -> None:
    """As they come, failed or not; those of groups one by one; the same object twice is yielded twice."""
    again = result_of(backend, "d")
    given = [result_of(backend, "a"), group_of(backend, "b", "c"), again, again]

    async def main() -> list[tuple[str, str]]:
        await asyncio.to_thread(writer.store, "c", "no", states.FAILURE)
        found: list[tuple[str, str]] = []
        after = {"c": ("d", 1), "a": ("b", 3)}
        async for each in aio.as_completed(given, PATIENCE):
            found.append((each.id, each.state))
            if len(found) == 3:
                await asyncio.to_thread(writer.store, "a", 2)
            elif each.id in after:
                await asyncio.to_thread(writer.store, *after[each.id])
        return found

    success = states.SUCCESS
    assert in_a_loop(main()) == [
        ("c", states.FAILURE), ("d", success), ("d", success), ("a", success), ("b", success)
    ]  # fmt: skip


@anywhere
def test_as_completed_of_what_is_there(backend: DatabaseBackend, writer: Writer) -> None:
    """In the order in which they are given; two objects of one task both, though one knows its result."""
    for task_id in "cab":
        writer.store(task_id, task_id)
    known = result_of(backend, "a")
    assert known.get() == "a"
    given = [*(result_of(backend, each) for each in "bca"), known]

    async def main() -> list[Any]:
        return [each async for each in aio.as_completed(given, 0)]

    found = in_a_loop(main())

    assert [id(each) for each in found] == [id(each) for each in (known, *given[:3])]


@anywhere
def test_as_completed_in_time(backend: DatabaseBackend, writer: Writer) -> None:
    """What is there comes before the error."""
    writer.store("a", 1)
    found: list[Any] = []

    async def main() -> None:
        results = [result_of(backend, "never"), result_of(backend, "a")]
        await collect(aio.as_completed(results, 0.05), found)

    with pytest.raises(AwaitTimeout):
        in_a_loop(main())
    assert ([each.id for each in found], backend.looker.awaited()) == (["a"], [])


# -- watch -----------------------------------------------------------------------------------------------------------


@everywhere
def test_watch(backend: DatabaseBackend, writer: Writer) -> None:
    """Each state that is seen, with what is stored; it ends with the task, and the result is known then."""
    steps = [
        (states.STARTED, None), ("PROGRESS", {"done": 1}), ("PROGRESS", {"done": 2}), (states.RETRY, "again"),
        (states.SUCCESS, "yes"),
    ]  # fmt: skip
    result = result_of(backend)

    async def main() -> list[Any]:
        seen, left = [], list(steps)
        async for state, info in result.watch(PATIENCE):
            seen.append((state, str(info) if isinstance(info, Exception) else info))
            if left:
                next_state, stored = left.pop(0)
                await asyncio.to_thread(writer.store, "t", stored, next_state)
        return seen

    seen = in_a_loop(main())

    assert [state for state, _ in seen] == [states.PENDING, *(state for state, _ in steps)]
    assert (seen[1:4], seen[5]) == (steps[:3], steps[4])
    assert (result._cache["result"], backend.looker.awaited()) == ("yes", [])


@anywhere
def test_watch_of_what_has_failed(backend: DatabaseBackend, writer: Writer) -> None:
    """One state, with the exception; nothing is raised. The same again, from what the result knows."""
    writer.store("t", "no", states.FAILURE)
    result = result_of(backend)

    async def main() -> list[Any]:
        return [(state, str(info)) for _ in range(2) async for state, info in result.watch(0)]

    assert in_a_loop(main()) == [(states.FAILURE, "no")] * 2


@anywhere
def test_watch_in_time(backend: DatabaseBackend, writer: Writer) -> None:
    """The state that a task has, and then the error; a task that nobody knows is pending."""
    writer.store("begun", 7, "PROGRESS")
    seen: list[Any] = []

    for task_id in ("begun", "unknown"):
        with pytest.raises(AwaitTimeout):
            in_a_loop(collect(result_of(backend, task_id).watch(0), seen))

    assert (seen, backend.looker.awaited()) == ([("PROGRESS", 7), (states.PENDING, None)], [])


@anywhere
def test_watch_is_left(backend: DatabaseBackend) -> None:
    """Whoever breaks out of it leaves nothing behind."""

    async def main() -> list[str]:
        async for _ in result_of(backend).watch():
            break
        await until(lambda: not backend.looker.awaited())
        return begun()

    assert in_a_loop(main()) == []
