"""Loops that wait: what is left when waits are given up, many loops, and forks."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from typing import Any

import pytest
from celery import states

from celery_sql_results import DatabaseBackend, aio
from celery_sql_results.errors import AwaitTimeout
from servers import Database
from servers.pool import on
from support import Backends, app_on, close, fork
from waiting.conftest import PATIENCE, Aside, everywhere
from waiting.conftest import until as until_there
from waiting.loops import begun, beside, collect, in_a_loop, until, until_awaited
from waiting.writer import Writer

anywhere = on("sqlite")
on_servers = on("postgresql", "mariadb")


async def give_up(tasks: list[asyncio.Future[Any]]) -> set[type]:
    """Cancel some tasks, and return how they have ended."""
    for task in tasks:
        task.cancel()
    return {type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)}


def rows(database: Database) -> int:
    """How many rows of waiters there are, where there are any at all."""
    if database.kind != "postgresql":
        return 0
    return int(database.execute("SELECT count(*) FROM celery_taskmeta_waiters")[0][0])


# -- what is left ----------------------------------------------------------------------------------------------------


@everywhere
def test_waits_that_are_cancelled(backend: DatabaseBackend, database: Database, writer: Writer) -> None:
    """At the first step, at the first look and later: no wait is left, and soon no row of a waiter."""
    app = backend.app
    backend.looker  # noqa: B018 - so that all of them begin at once

    async def main() -> list[Any]:
        found: list[Any] = []
        for steps in (0, 1, 2, 5, 100):
            waits = [app.AsyncResult(f"t-{steps}-{number}") for number in range(20)]
            group = app.GroupResult("g", waits[:9])
            awaited = [*waits, group, collect(aio.as_completed(waits), found), collect(waits[0].watch(), [])]
            tasks = [asyncio.ensure_future(aio.aget(each) if hasattr(each, "id") else each) for each in awaited]
            for _ in range(steps):
                await asyncio.sleep(0.001)
            assert await give_up(tasks) == {asyncio.CancelledError}
            assert backend.looker.awaited() == []
        await asyncio.to_thread(writer.store, "t", 1)
        return [found, await app.AsyncResult("t").aget(PATIENCE), begun()]

    assert in_a_loop(main()) == [[], 1, []]
    until_there(lambda: rows(database) == 0, "the end of the rows")


@everywhere
def test_the_first_wait_is_cancelled(backend: DatabaseBackend, writer: Writer) -> None:
    """While a thread connects for it; the next one does not miss that."""

    async def main() -> object:
        first = [asyncio.ensure_future(aio.aget(backend.app.AsyncResult("t"))) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await give_up(first) == {asyncio.CancelledError}
        await asyncio.to_thread(writer.store, "t", 1)
        return await backend.app.AsyncResult("t").aget(PATIENCE)

    assert in_a_loop(main()) == 1
    until_there(lambda: not begun(), "the end of the thread")


def waiting_loop(backend: DatabaseBackend, *task_ids: str) -> asyncio.AbstractEventLoop:
    """A loop that has begun to wait, and stands still."""
    loop = asyncio.new_event_loop()
    for task_id in task_ids:
        loop.create_task(aio.aget(backend.app.AsyncResult(task_id)))  # noqa: RUF006 - it lives as long as it waits
    loop.run_until_complete(until_awaited(backend, *task_ids))
    return loop


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning")
def test_a_loop_that_is_closed_while_it_waits(backend: DatabaseBackend, writer: Writer) -> None:
    """Its waits end by themselves, it is kept alive by nothing, and what comes for it disturbs nobody."""
    loop = waiting_loop(backend, *(f"t-{number}" for number in range(50)))
    loop.close()
    for number in range(0, 50, 2):
        writer.store(f"t-{number}")
    until_there(lambda: not backend.looker.awaited(), "the end of the waits")
    dead = weakref.ref(loop)
    del loop
    until_there(lambda: gc.collect() >= 0 and dead() is None, "the end of the loop")

    assert in_a_loop(aio.aget(backend.app.AsyncResult("t-0"), PATIENCE)) is None


def test_loops_that_have_ended_are_not_kept(backend: DatabaseBackend, writer: Writer) -> None:
    """By a backend that lives on: neither the one that was the first to wait, nor those after it."""
    writer.store("t", 1)
    dead: list[Any] = []

    async def main() -> object:
        dead.append(weakref.ref(asyncio.get_running_loop()))
        with pytest.raises(AwaitTimeout):
            await backend.app.AsyncResult("never").aget(0.01)
        return await backend.app.AsyncResult("t")

    values = [in_a_loop(main()) for _ in range(3)]
    gc.collect()

    assert (values, [each() for each in dead]) == ([1, 1, 1], [None] * 3)


def test_a_loop_that_stands_still_goes_on_later(backend: DatabaseBackend, writer: Writer) -> None:
    """Its waits are kept meanwhile."""
    loop = waiting_loop(backend, "t")
    writer.store("t", 5)
    until_there(lambda: not backend.looker.awaited(), "the result")
    (task,) = asyncio.all_tasks(loop)
    value = loop.run_until_complete(task)
    loop.close()

    assert value == 5


# -- many loops ------------------------------------------------------------------------------------------------------


@everywhere
def test_many_who_await_one_task(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Coroutines of loops in several threads, the same result object in several coroutines, and `get()`."""
    shared = backend.app.AsyncResult("t")

    async def main() -> list[Any]:
        results = [*(backend.app.AsyncResult("t") for _ in range(10)), *[shared] * 10]
        return await asyncio.gather(*map(aio.aget, results))  # which takes equal results for one

    loops = [aside(in_a_loop, main()) for _ in range(3)]
    gets = [aside(backend.app.AsyncResult("t").get, timeout=PATIENCE) for _ in range(5)]
    until_there(lambda: len(backend.looker.awaited()) == 65, "all waits")
    writer.store("t", 7)

    assert [each.result() for each in loops] == [[7] * 20] * 3
    assert [each.result() for each in gets] == [7] * 5


@anywhere
def test_a_backend_of_each_thread(backends: Backends, writer: Writer, aside: Aside) -> None:
    """As `result_backend_thread_safe=False` has it: each loop waits through its own."""
    app = backends(result_backend_thread_safe=False).app

    async def main() -> list[Any]:
        result = app.AsyncResult("t")
        return [await result.aget(PATIENCE), id(result.backend)]

    one, two = aside(in_a_loop, main()), aside(in_a_loop, main())
    writer.store("t", 1)
    found = [one.result(), two.result()]

    assert ([value for value, _ in found], len({backend for _, backend in found})) == ([1, 1], 2)


def test_a_database_in_memory() -> None:
    """It has one connection, which all threads share."""
    app = app_on("sqlite://")

    async def main() -> object:
        task = asyncio.ensure_future(aio.aget(app.AsyncResult("t"), PATIENCE))
        await until_awaited(app.backend, "t")
        app.backend.store_result("t", 1, states.SUCCESS)
        return await task

    value = in_a_loop(main())
    close(app.backend)

    assert value == 1


def test_pgbouncer(pgbouncer: Database) -> None:
    """In transaction mode, without notifications."""
    app = app_on(
        pgbouncer.url, database_listen=False, database_engine_options={"connect_args": {"prepare_threshold": None}}
    )

    async def main() -> object:
        task = asyncio.gather(*(aio.aget(app.AsyncResult(f"t-{number}"), PATIENCE) for number in range(50)))
        await until(lambda: len(app.backend.looker.awaited()) == 50)
        for number in range(50):
            await beside(app.backend.store_result, f"t-{number}", number, states.SUCCESS)
        return await task

    values = in_a_loop(main())
    close(app.backend)

    assert values == list(range(50))


@anywhere
@pytest.mark.parametrize("name", ["uvloop", "debug"])
def test_other_loops(backend: DatabaseBackend, writer: Writer, name: str) -> None:
    """uvloop, and asyncio in its debug mode."""
    new_loop = pytest.importorskip("uvloop").new_event_loop if name == "uvloop" else asyncio.new_event_loop
    loop = new_loop()
    loop.set_debug(name == "debug")

    async def main() -> list[Any]:
        waits = [asyncio.ensure_future(aio.aget(backend.app.AsyncResult(f"t-{number}"))) for number in range(60)]
        await until_awaited(backend, "t-59")
        for number in range(50):
            await asyncio.to_thread(writer.store, f"t-{number}", number)
        values = await asyncio.gather(*waits[:50])
        assert await give_up(waits[50:]) == {asyncio.CancelledError}
        with pytest.raises(AwaitTimeout):
            await backend.app.AsyncResult("never").aget(0.01)
        return values

    values = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

    assert (values, backend.looker.awaited()) == (list(range(50)), [])


@anywhere
def test_anyio(backend: DatabaseBackend, writer: Writer) -> None:
    """On asyncio all works, its scopes of cancellation too; on trio, an error says what to do, and that does it."""
    anyio, trio = pytest.importorskip("anyio"), pytest.importorskip("trio")
    writer.store("t", 1)

    async def main() -> list[Any]:
        with anyio.move_on_after(0.05) as scope:
            await backend.app.AsyncResult("never")
        return [scope.cancelled_caught, await backend.app.AsyncResult("t"), backend.looker.awaited()]

    async def on_trio() -> object:
        with pytest.raises(RuntimeError, match=r"trio\.to_thread\.run_sync\(result\.get\)"):
            await backend.app.AsyncResult("t")
        return await trio.to_thread.run_sync(backend.app.AsyncResult("t").get)

    assert anyio.run(main, backend="asyncio") == [True, 1, []]
    assert anyio.run(on_trio, backend="trio") == 1


# -- forks -----------------------------------------------------------------------------------------------------------


@everywhere
def test_a_fork_while_a_loop_waits(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """The child has a loop of its own, and the parent goes on."""

    async def wait(task_id: str) -> object:
        return await backend.app.AsyncResult(task_id).aget(PATIENCE)

    mine = aside(in_a_loop, wait("parent"))
    until_there(lambda: backend.looker.awaited() == ["parent"])
    child = fork()
    if not child:
        status = 1
        try:
            status = 0 if in_a_loop(wait("child")) == 2 else 3
        finally:
            os._exit(status)
    writer.store("child", 2)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    writer.store("parent", 1)

    assert (ended, mine.result(PATIENCE)) == (0, 1)
