"""Results that coroutines await: what `get()` does, on every database, with nobody waiting in a thread."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from celery import states
from celery.exceptions import ChordError, TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, EagerResult, ResultSet, allow_join_result, denied_join_result

from celery_sql_results import DatabaseBackend, aio
from celery_sql_results.errors import AwaitTimeout
from servers import Database
from servers.pool import on
from support import Backends, Statements
from waiting.conftest import PATIENCE, everywhere
from waiting.loops import beside, group_of, in_a_loop, result_of, stored_later, until
from waiting.writer import Writer

anywhere = on("sqlite")
of_redis = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")  # by Celery's own backend


# -- values and errors -----------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("how", ["await", "aget"])
def test_a_result_that_is_stored_later(backend: DatabaseBackend, writer: Writer, how: str) -> None:
    """By another process; and once more, from the result object."""

    async def main() -> list[object]:
        result = result_of(backend)
        awaited = result.aget(timeout=PATIENCE) if how == "aget" else asyncio.wait_for(result, PATIENCE)
        return [await stored_later(backend, writer, awaited, ("t", {"sum": 3})), await result, await result.aget(0)]

    assert in_a_loop(main()) == [{"sum": 3}] * 3


@everywhere
@pytest.mark.parametrize(("state", "error"), [(states.FAILURE, ValueError), (states.REVOKED, TaskRevokedError)])
def test_an_error_is_raised(backend: DatabaseBackend, writer: Writer, state: str, error: type[Exception]) -> None:
    """Each time; or returned, if `propagate` is off."""

    async def main() -> tuple[Any, ...]:
        result, other = result_of(backend), result_of(backend)
        both = asyncio.gather(result, other.aget(propagate=False), return_exceptions=True)
        return *await stored_later(backend, writer, both, ("t", "no", state)), *await asyncio.gather(
            result, other, return_exceptions=True
        )

    found = in_a_loop(main())

    assert [(type(each), str(each)) for each in found] == [(error, "no")] * 4


@everywhere
@pytest.mark.parametrize("timeout", [0, 0.1, -1])
def test_a_timeout(backend: DatabaseBackend, timeout: float) -> None:
    """It is Celery's error and Python's; nothing is awaited any more, also where it is the first wait of all."""

    async def main() -> list[str]:
        for error in (CeleryTimeoutError, TimeoutError, AwaitTimeout):
            with pytest.raises(error):
                await result_of(backend).aget(timeout=timeout)
        return backend.looker.awaited()

    assert in_a_loop(main()) == []


@everywhere
def test_a_timeout_of_0_finds_what_is_there(backend: DatabaseBackend, writer: Writer) -> None:
    """It looks once, also where it is the first wait of all; a task that has begun is not ready."""
    writer.store("t", 1)
    writer.store("begun", None, states.STARTED)

    async def main() -> object:
        value = await result_of(backend).aget(timeout=0)
        with pytest.raises(AwaitTimeout):
            await result_of(backend, "begun").aget(timeout=0)
        return value

    assert in_a_loop(main()) == 1


@anywhere
def test_an_ignored_result(backend: DatabaseBackend) -> None:
    """Is `None`, at once: nobody will store it."""
    result = result_of(backend)
    result.ignored = True

    async def main() -> list[Any]:
        return [await result, await group_of(backend, result), [each async for each in aio.as_completed([result])]]

    assert in_a_loop(main()) == [None, [None], [result]]


@anywhere
def test_a_value_that_cannot_be_read(backend: DatabaseBackend, database: Database, writer: Writer) -> None:
    """Is an error for whoever awaits it, each time; whoever only looks at it sees the error."""
    writer.store("t", 1)
    database.execute("UPDATE celery_taskmeta SET result = '{not json'")

    async def main() -> tuple[Any, ...]:
        result = result_of(backend)
        awaited = await asyncio.gather(result, result, result.aget(propagate=False), return_exceptions=True)
        seen = [each async for each in result.watch()]
        return awaited, [each.id async for each in aio.as_completed([result])], seen

    awaited, completed, seen = in_a_loop(main())
    known = result_of(backend).result

    assert {type(each) for each in awaited} == {type(known)}
    assert (completed, [(each.state, type(each.info)) for each in seen]) == (["t"], [(states.SUCCESS, type(known))])


@anywhere
def test_callbacks_are_called(backend: DatabaseBackend, writer: Writer) -> None:
    """Those of `then`, once, whoever finds the result."""
    called: list[str] = []

    async def main() -> object:
        result = result_of(backend)
        await beside(result.then, lambda done: called.append(done.id))
        value = await stored_later(backend, writer, result.aget(), ("t", 1))
        await until(lambda: called)
        return value

    assert (in_a_loop(main()), called) == (1, ["t"])


@anywhere
def test_a_cached_result(backends: Backends, writer: Writer) -> None:
    """By any result object of a backend that has a cache."""
    backend = backends(result_cache_max=10)
    writer.store("t", 1)

    async def main() -> list[object]:
        first = await result_of(backend)
        await beside(backend.database.rows.tasks.forget, "t")
        return [first, await result_of(backend).aget(timeout=0), await group_of(backend, "t", "t").aget(timeout=0)]

    assert in_a_loop(main()) == [1, 1, [1, 1]]


@anywhere
def test_the_functions_take_celerys_own_results(backend: DatabaseBackend, writer: Writer) -> None:
    """An app that has no backend yet makes these."""
    writer.store("t", 1)
    result = AsyncResult("t", backend=backend, app=backend.app)

    async def main() -> list[Any]:
        seen = [tuple(each) async for each in aio.watch(result)]
        return [await aio.aget(result), seen, await aio.aget(ResultSet([result, result], app=backend.app))]

    assert in_a_loop(main()) == [1, [(states.SUCCESS, 1)], [1, 1]]


@anywhere
def test_eager_results(backend: DatabaseBackend) -> None:
    """They are there, and raise what they hold."""
    good, bad = EagerResult("good", 1, states.SUCCESS), EagerResult("bad", ValueError("no"), states.FAILURE)

    async def main() -> list[Any]:
        with pytest.raises(ValueError, match="no"):
            await aio.aget(bad)
        seen = [tuple(each) async for each in aio.watch(good)]
        both = [each.id async for each in aio.as_completed([good, bad])]
        return [await aio.aget(good), await aio.aget(bad, propagate=False) is bad.result, seen, both]

    assert in_a_loop(main()) == [1, True, [(states.SUCCESS, 1)], ["good", "bad"]]


@anywhere
def test_inside_a_task(backend: DatabaseBackend, writer: Writer) -> None:
    """As strict as `get()`: what waits here holds up the worker."""
    writer.store("t", 1)
    result, group = result_of(backend), group_of(backend, "t")

    async def first(results: Any) -> Any:
        return [each async for each in results]

    async def main() -> list[Any]:
        with denied_join_result():
            for refused in (result.aget(), group.aget(), first(aio.as_completed([result])), first(result.watch())):
                with pytest.raises(RuntimeError, match="within a task"):
                    await refused
            allowed = [await result.aget(disable_sync_subtasks=False), await group.aget(disable_sync_subtasks=False)]
            with allow_join_result():
                return [*allowed, await result_of(backend)]

    assert in_a_loop(main()) == [1, [1], 1]


@anywhere
def test_an_app_that_is_eager(backends: Backends) -> None:
    """Warns, as `get()` does: nobody stores the result."""
    backend = backends(task_always_eager=True)

    async def main() -> None:
        with pytest.warns(RuntimeWarning, match="task_always_eager"), pytest.raises(AwaitTimeout):
            await result_of(backend).aget(timeout=0)

    in_a_loop(main())


# -- tasks before a result -------------------------------------------------------------------------------------------


@everywhere
def test_the_error_of_a_parent_is_raised(backend: DatabaseBackend, writer: Writer) -> None:
    """Of one that fails while its child is awaited: the child will never run."""
    child = result_of(backend, "child", parent=result_of(backend, "parent"))

    async def main() -> None:
        with pytest.raises(ValueError, match="poor"):
            await stored_later(backend, writer, child.aget(), ("parent", "poor", states.FAILURE))

    in_a_loop(main())


@everywhere
def test_which_error_goes_first(backend: DatabaseBackend, writer: Writer) -> None:
    """That of the first task in a chain that failed, also if all are known; a chord raises what its part did."""
    writer.store("a", "first", states.FAILURE)
    writer.store("b", "second", states.FAILURE)
    writer.store("part", "of the part", states.FAILURE)
    backend.store_result("body", ChordError("of the body"), states.FAILURE)

    async def main() -> list[Any]:
        a = result_of(backend, "a")
        c = result_of(backend, "c", parent=result_of(backend, "b", parent=a))
        body = result_of(backend, "body", parent=group_of(backend, "other", "part"))
        alone = body.aget(follow_parents=False)
        return await asyncio.gather(c, body, alone, group_of(backend, body), return_exceptions=True)

    assert list(map(str, in_a_loop(main()))) == ["first", "of the part", "of the body", "of the part"]


@anywhere
def test_parents_that_are_not_followed(backend: DatabaseBackend, writer: Writer) -> None:
    """If asked so, and where nothing is to be raised."""
    writer.store("parent", "poor", states.FAILURE)

    async def main() -> None:
        for how in ({"follow_parents": False}, {"propagate": False}):
            child = result_of(backend, "child", parent=result_of(backend, "parent"))
            with pytest.raises(AwaitTimeout):
                await child.aget(timeout=0.05, **how)

    in_a_loop(main())


@anywhere
def test_parents_that_are_known(backend: DatabaseBackend, writer: Writer) -> None:
    """One that has failed raises at once; of those that have succeeded, no value is read: it may be unreadable."""
    writer.store("bad", "poor", states.FAILURE)
    writer.store("good", 1)
    writer.store("child", 2)
    bad, good = result_of(backend, "bad"), result_of(backend, "good")
    assert (bad.state, good.state) == (states.FAILURE, states.SUCCESS)

    async def main() -> object:
        with pytest.raises(ValueError, match="poor"):
            await result_of(backend, "never", parent=bad)
        return await result_of(backend, "child", parent=good)

    assert in_a_loop(main()) == 2


def test_no_value_of_a_parent_is_read(
    statements: Statements, backend: DatabaseBackend, database: Database, writer: Writer
) -> None:
    """A chord of many parts waits for one result: their values may be large, and one may be unreadable."""
    for number in range(5):
        writer.store(f"part-{number}", number)
    database.execute("UPDATE celery_taskmeta SET result = '{not json'")
    backend.looker.look_once  # noqa: B018 - so that the backend has its connections
    body = result_of(backend, "body", parent=group_of(backend, *(f"part-{number}" for number in range(5))))

    async def main() -> object:
        return await stored_later(backend, writer, body.aget(), ("body", 6))

    with statements() as seen:
        value = in_a_loop(main())

    assert value == 6
    assert [each for each in seen if "part-0" in each and "result" in each.replace("celery_taskmeta", "")] == []
