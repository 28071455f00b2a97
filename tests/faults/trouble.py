"""What goes wrong: each of these befalls a database that others are using."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from concurrency.actors import quick
from faults.load import until
from servers import Database
from servers.proxy import Proxy

#: How the connections of others to a database are found, and one's own.
CONNECTIONS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND application_name <> 'servers'",
    "mariadb": "SELECT id FROM information_schema.processlist WHERE db = '{}'",
}
OWN = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}
END = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}
#: What keeps everybody else from writing results, until its transaction ends.
LOCK = {
    "postgresql": "LOCK TABLE celery_taskmeta IN EXCLUSIVE MODE",
    "mariadb": "SELECT count(*) FROM celery_taskmeta FOR UPDATE",
    "sqlite": "BEGIN IMMEDIATE",
}


def as_role(database: Database) -> Database:
    """The same database for a role of its own, with all rights in it and none beyond, as in real life."""
    name, password = f"{database.name}_role", secrets.token_hex()
    database.server.create_role(name, password, database.name, ddl=True)
    return replace(database, url=database.server.url(database.name, user=name, password=password))


def engine_on(database: Database) -> sa.Engine:
    """A way for a stranger to connect."""
    return sa.create_engine(database.url, poolclass=sa.NullPool, **quick(database.url))


def kill(database: Database) -> None:
    """SIGKILL the server, and start it again."""
    database.server.kill()
    database.server.restart()


def connections(database: Database) -> set[int]:
    """The server's identifiers of all connections to the database, without the administrator's."""
    return {id_ for (id_,) in database.server.execute(CONNECTIONS[database.kind].format(database.name))}


def disconnect(database: Database, spared: frozenset[int] = frozenset()) -> int:
    """Let the server end the connections to the database, and return how many there were."""
    found = connections(database) - spared
    for id_ in found:
        with suppress(Exception):  # it has ended by itself meanwhile, say the drivers, each in its own words
            database.server.execute(END[database.kind].format(id_))
    return len(found)


@contextmanager
def read_only(database: Database) -> Iterator[None]:
    """The server takes no writes, as one that has lost its role in a failover. MariaDB's administrator may write."""
    set_read_only(database, "on")
    try:
        yield
    finally:
        set_read_only(database, "off")


def set_read_only(database: Database, value: str) -> None:
    """Switch it, for connections that are open as well."""
    if database.kind == "mariadb":
        database.server.execute(f"SET GLOBAL read_only = {value}")
        return
    database.server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    database.server.execute("SELECT pg_reload_conf()")
    until(lambda: database.server.execute("SHOW default_transaction_read_only") == [(value,)], value)


@contextmanager
def crowded(database: Database) -> Iterator[None]:
    """Strangers hold all connections that the server allows to roles, and nobody else has one."""
    engine, held = engine_on(database), set[int]()
    with ExitStack() as strangers:

        def is_full() -> bool:
            with suppress(Exception):  # MariaDB's seat for the administrator is taken while somebody is refused
                disconnect(database, frozenset(held))
                with suppress(DBAPIError):
                    while True:
                        connection = strangers.enter_context(engine.connect())
                        held.add(connection.exec_driver_sql(OWN[database.kind]).scalar_one())
                return connections(database) <= held
            return False

        until(is_full, "strangers hold all connections")
        yield


@contextmanager
def locked(database: Database) -> Iterator[sa.Connection]:
    """A stranger's transaction, which keeps everybody else from writing results until it ends."""
    with engine_on(database).connect() as connection:
        connection.exec_driver_sql(LOCK[database.kind])
        yield connection


@contextmanager
def proxied(database: Database) -> Iterator[tuple[Proxy, str]]:
    """A proxy before a database, and the URL that leads through it."""
    with Proxy(database.server.port) as proxy:
        url = make_url(database.url).set(port=proxy.port)
        yield proxy, url.render_as_string(hide_password=False)


def lose(proxy: Proxy, seconds: float) -> None:
    """What is under way is lost with its connection, and new connections get no answer for a while."""
    proxy.silent = True
    time.sleep(seconds)
    proxy.cut()
    time.sleep(seconds)
    proxy.silent = False
