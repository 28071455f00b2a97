"""The server of somebody who waits is not the primary any more: he finds what is there, and all that comes later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from sqlalchemy import make_url

from celery_sql_results import DatabaseBackend
from faults.actors import LONG
from faults.conftest import Backends
from faults.load import until
from faults.test_readers import name, primary, standby
from faults.trouble import as_role, disconnect
from servers import Database, PostgreSQL, Standby
from servers.pool import on
from servers.proxy import Proxy
from support import close

__all__ = ["name", "primary", "standby"]

DRIVERS = ("psycopg", "psycopg2")


@pytest.fixture
def proxy(primary: PostgreSQL) -> Iterator[Proxy]:
    """Where the one who waits finds his server."""
    with Proxy(primary.port) as proxy:
        yield proxy


def through(proxy: Proxy, primary: PostgreSQL, name: str, driver: str = "psycopg") -> str:
    """The URL of who waits."""
    return make_url(primary.url(name, driver=driver)).set(port=proxy.port).render_as_string(hide_password=False)


class Waiting:
    """Somebody who waits for a task, in a thread."""

    def __init__(self, backend: DatabaseBackend, task_id: str, timeout: float = LONG) -> None:
        self._found: list[Any] = []
        self._result = backend.app.AsyncResult(task_id)
        self._thread = threading.Thread(target=self._wait, args=(timeout,))
        self._thread.start()
        until(lambda: task_id in backend.looker.awaited() or self._found, "it waits")

    def _wait(self, timeout: float) -> None:
        try:
            self._found.append(self._result.get(timeout=timeout))
        except Exception as error:  # noqa: BLE001 - the test reports it, whatever it is
            self._found.append(error)

    @property
    def found(self) -> Any:
        """What it has found, or what was raised."""
        self._thread.join()
        return self._found[0]


def store(backend: DatabaseBackend, task_id: str) -> None:
    backend.store_result(task_id, task_id, states.SUCCESS)


def until_told(backend: DatabaseBackend, task_id: str) -> None:
    """Return when changes of a task are made known."""
    until(lambda: backend.looker.is_told([task_id]), "it is told")


def move(proxy: Proxy, server: PostgreSQL) -> None:
    """Lead to another server, and cut who is with the one before."""
    proxy.target = server.port
    proxy.cut()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_proxy_leads_to_a_standby(
    primary: PostgreSQL, standby: Standby, proxy: Proxy, name: str, backends: Backends, driver: str
) -> None:
    """For long: who waits already, and who begins to wait there, find what the standby has got since."""
    pytest.importorskip(driver)
    waiter, writer = backends(through(proxy, primary, name, driver)), backends(primary.url(name))
    before = Waiting(waiter, "before")
    until_told(waiter, "before")
    standby.catch_up()
    move(proxy, standby)
    later = Waiting(waiter, "later")
    for task_id in ("before", "later"):
        store(writer, task_id)
    assert [before.found, later.found] == ["before", "later"]

    again = Waiting(waiter, "again")
    proxy.target = primary.port  # connections that are open stay where they are
    standby.kill()
    until_told(waiter, "again")
    store(writer, "again")
    assert again.found == "again"
    for backend in (waiter, writer):
        close(backend)


def test_only_a_standby_is_left(
    primary: PostgreSQL, standby: Standby, proxy: Proxy, name: str, backends: Backends
) -> None:
    """For good: what it has is found at once, a timeout is kept; and when it is promoted, all is as it was."""
    waiter, writer = backends(through(proxy, primary, name)), backends(primary.url(name))
    long = Waiting(waiter, "long")
    until_told(waiter, "long")
    store(writer, "there")
    standby.catch_up()
    close(writer)
    move(proxy, standby)
    primary.kill()

    assert Waiting(waiter, "there").found == "there"
    assert isinstance(Waiting(waiter, "missing", timeout=1).found, CeleryTimeoutError)
    standby.promote()
    until_told(waiter, "long")
    store(waiter, "long")
    assert long.found == "long"
    close(waiter)


@on("postgresql")
def test_a_role_that_is_set_read_only(database: Database, backends: Backends) -> None:
    """It may listen, but leaves no rows of waiters; what others store is found, and they are left when it may write."""
    role = as_role(database)
    waiter, writer = backends(role.url), backends(database.url)
    before = Waiting(waiter, "before")
    until_told(waiter, "before")
    name = make_url(role.url).username
    database.execute(f'ALTER ROLE "{name}" SET default_transaction_read_only = on')
    disconnect(database)
    later = Waiting(waiter, "later")
    for task_id in ("before", "later"):
        store(writer, task_id)
    assert [before.found, later.found] == ["before", "later"]

    again = Waiting(waiter, "again")
    database.execute(f'ALTER ROLE "{name}" RESET default_transaction_read_only')
    until_told(waiter, "again")
    store(writer, "again")
    assert again.found == "again"
