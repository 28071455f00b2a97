"""Each way in which a server of MySQL's family stops to take writes: what is stored meanwhile is there afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest
from celery import states

from faults.conftest import Backends
from faults.load import until
from faults.test_failover import meanwhile, own_ids, retried
from faults.trouble import as_role
from servers import Database
from servers.pool import needs, on
from support import close


@contextmanager
def switched(database: Database, *names: str) -> Iterator[None]:
    """Global variables are on, for connections that are open as well."""
    for name in names:
        database.execute(f"SET GLOBAL {name} = ON")
    try:
        yield
    finally:
        for name in reversed(names):
            database.execute(f"SET GLOBAL {name} = OFF")


@contextmanager
def started(database: Database, name: str, value: str) -> Iterator[None]:
    """The server runs with another setting."""
    settings = database.server.settings
    settings[name] = value
    database.server.restart()
    try:
        yield
    finally:
        del settings[name]
        database.server.restart()


#: By what a test needs for it.
WAYS: dict[str, Callable[[Database], AbstractContextManager[None]]] = {
    "read_only": lambda database: switched(database, "read_only"),
    "super_read_only": lambda database: switched(database, "read_only", "super_read_only"),
    "offline_mode": lambda database: switched(database, "offline_mode"),
    "innodb_read_only": lambda database: started(database, "innodb_read_only", "ON"),
    "innodb_force_recovery": lambda database: started(database, "innodb_force_recovery", "1"),
}


@on("mariadb")
@pytest.mark.parametrize("way", WAYS)
def test_stored_while_the_server_takes_no_writes(
    database: Database, backends: Backends, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again, on other connections than before, until the server takes it."""
    needs(database, way)
    backend = backends(as_role(database).url)
    backend.store_result("before", 1, states.SUCCESS)
    engine = backend.database.engine
    before = own_ids(engine, "SELECT CONNECTION_ID()")
    with ExitStack() as way_out:
        way_out.enter_context(WAYS[way](database))
        with meanwhile(lambda: backend.store_result("t", 2, states.SUCCESS)):
            until(retried(caplog), "the store is tried again")
            way_out.close()

    assert [backend.get_result(task_id) for task_id in ("before", "t")] == [1, 2]
    assert before & own_ids(engine, "SELECT CONNECTION_ID()") == set()
    close(backend)
