"""Loops that wait for databases that are away, silent, or will not have us, or where no thread is to spare."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import states
from sqlalchemy import make_url

from celery_sql_results import DatabaseBackend, aio
from celery_sql_results.errors import AwaitTimeout, DatabaseUnusable
from servers import Database
from servers.pool import on
from servers.proxy import Proxy
from support import app_on, close
from waiting.conftest import PATIENCE, everywhere
from waiting.loops import collect, in_a_loop, until, until_awaited
from waiting.writer import Writer

anywhere = on("sqlite")
on_servers = on("postgresql", "mariadb")


@pytest.fixture
def proxied(database: Database) -> Iterator[tuple[Proxy, DatabaseBackend]]:
    """A backend that reaches its database through a proxy."""
    with Proxy(database.server.port) as proxy:
        url = make_url(database.url).set(port=proxy.port).render_as_string(hide_password=False)
        app = app_on(url, database_create_tables_at_setup=False)
        yield proxy, app.backend
        close(app.backend)


@on_servers
def test_a_database_that_is_away_as_the_first_wait_begins(
    proxied: tuple[Proxy, DatabaseBackend], writer: Writer
) -> None:
    """A timeout is kept, and who has none gets his result when it is back. Nothing holds up the loop meanwhile."""
    proxy, backend = proxied
    port, proxy.target = proxy.target, 1

    async def main() -> object:
        task = asyncio.ensure_future(aio.aget(backend.app.AsyncResult("t"), PATIENCE))
        with pytest.raises(AwaitTimeout):
            await backend.app.AsyncResult("t").aget(0.01)
        await asyncio.to_thread(writer.store, "t", 1)
        proxy.target = port
        return await task

    assert in_a_loop(main()) == 1


@on_servers
def test_a_database_that_goes_away_meanwhile(proxied: tuple[Proxy, DatabaseBackend], writer: Writer) -> None:
    """Waits go on when it is back; timeouts are kept, 0 as well, and states are seen."""
    proxy, backend = proxied
    port, seen = proxy.target, list[Any]()

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(aio.aget(backend.app.AsyncResult(f"t-{number}"))) for number in range(50)]
        watching = asyncio.ensure_future(collect(backend.app.AsyncResult("t-0").watch(), seen))
        await until(lambda: seen)
        proxy.target = 1
        await asyncio.to_thread(proxy.cut)
        for timeout in (0, 0.05):
            with pytest.raises(AwaitTimeout):
                await backend.app.AsyncResult("t-0").aget(timeout)
        for number in range(50):
            await asyncio.to_thread(writer.store, f"t-{number}", number)
        proxy.target = port
        await watching
        return await asyncio.gather(*tasks)

    assert in_a_loop(main()) == list(range(50))
    assert [each.state for each in seen] == [states.PENDING, states.SUCCESS]


@on_servers
def test_a_database_that_falls_silent(proxied: tuple[Proxy, DatabaseBackend], writer: Writer) -> None:
    """It keeps the connections and answers nothing: timeouts are kept, and the loop ends."""
    proxy, backend = proxied

    async def main() -> list[str]:
        await asyncio.to_thread(writer.store, "t", 1)
        assert await backend.app.AsyncResult("t") == 1
        proxy.silent = True
        for timeout in (0, 0.05):
            with pytest.raises(AwaitTimeout):
                await backend.app.AsyncResult("never").aget(timeout)
        return backend.looker.awaited()

    assert in_a_loop(main()) == []
    proxy.silent = False


@everywhere
def test_an_error_that_does_not_pass(backend: DatabaseBackend, database: Database, writer: Writer) -> None:
    """Reaches all who wait, in the middle of their waits and at their beginning."""
    writer.store("t", 1)

    async def main() -> set[type]:
        results = [backend.app.AsyncResult(f"t-{number}") for number in range(10)]
        tasks = [asyncio.ensure_future(aio.aget(each)) for each in (*results, backend.app.GroupResult("g", results))]
        await until_awaited(backend, "t-9")
        await asyncio.to_thread(database.execute, "DROP TABLE celery_taskmeta")
        found = {type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)}
        with pytest.raises(tuple(found)):
            await backend.app.AsyncResult("later")
        return found

    found = in_a_loop(main())

    assert len(found) == 1
    assert not found & {AwaitTimeout, asyncio.CancelledError, type(None)}
    assert backend.looker.awaited() == []


@on_servers
def test_a_database_that_will_not_have_us(database: Database) -> None:
    """Is an error for all who begin to wait; and once more for who asks again."""
    app = app_on(database.url.replace(f"/{database.name}", "/not_there"), database_create_tables_at_setup=False)

    async def main() -> list[Any]:
        results = [aio.aget(app.AsyncResult("t"), PATIENCE) for _ in range(6)]
        first = await asyncio.gather(*results[1:], return_exceptions=True)
        return [*first, *await asyncio.gather(results[0], return_exceptions=True)]

    found = in_a_loop(main())
    close(app.backend)

    assert {type(each) for each in found} == {DatabaseUnusable}


@anywhere
def test_no_thread_to_spare(backend: DatabaseBackend, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses one: that wait fails, and the next one does not."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer.store("t", 1)

    async def main() -> object:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="can't start"):
                    await backend.app.AsyncResult("t")
        return await backend.app.AsyncResult("t").aget(PATIENCE)

    assert in_a_loop(main()) == 1


@anywhere
def test_an_app_that_is_closed_while_a_loop_waits(backend: DatabaseBackend, writer: Writer) -> None:
    """Who sits through a wait gets his result all the same."""

    async def main() -> object:
        task = asyncio.ensure_future(aio.aget(backend.app.AsyncResult("t")))
        await until_awaited(backend, "t")
        backend.app.close()
        await asyncio.to_thread(writer.store, "t", 1)
        return await task

    assert in_a_loop(main()) == 1
