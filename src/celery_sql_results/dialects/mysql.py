"""MySQL and MariaDB: ``ON DUPLICATE KEY UPDATE``, ``GET_LOCK``, errors told apart by number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects.mysql import insert
from sqlalchemy.engine import Connection
from sqlalchemy.engine.url import URL

from .base import AutocommitImpl, Put, may_replace

#: Seconds to wait for another process to finish the set-up.
LOCK_TIMEOUT = 120

#: https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference
TRANSIENT = {
    1040,  # too many connections
    1047,  # Galera: node not ready
    1053,  # server shutdown in progress
    1205,  # lock wait timeout
    1213,  # deadlock
    1290,  # read-only: a failover is under way
    1836,  # read-only mode
    1927,  # connection was killed
    2002,
    2003,  # cannot connect
    2006,
    2013,
    2055,  # connection lost
}

#: Drivers that take these arguments, and what they get: the character set, and how long a silent server is waited for,
#: in seconds. Reading must outlast a wait for the lock of the set-up.
_DRIVERS = {"pymysql", "mysqldb"}
ARGUMENTS = {
    "charset": "utf8mb4",
    "connect_timeout": 30,
    "read_timeout": LOCK_TIMEOUT + 30,
    "write_timeout": LOCK_TIMEOUT + 30,
}


@lru_cache(maxsize=256)
def _upsert(where: Put, columns: tuple[str, ...]) -> sa.Insert:
    table, key, protected, _waiters = where
    statement = insert(table).values({column: sa.bindparam(column) for column in columns}).inline()
    new: dict[str, Any] = {column: statement.inserted[column] for column in columns if column != key}
    if protected:
        # Assignments run from left to right, and the guard reads the status: so the status changes last.
        guard = may_replace(table, protected)
        ordered = sorted(new, key=lambda column: column == "status")
        new = {column: sa.func.if_(guard, new[column], table.c[column]) for column in ordered}
    return statement.on_duplicate_key_update(list(new.items()))


@lru_cache(maxsize=256)
def _insert_once(table: sa.Table, columns: tuple[str, ...]) -> sa.Insert:
    """Not INSERT IGNORE, which ignores more than a key that is there."""
    statement = insert(table).values({column: sa.bindparam(column) for column in columns}).inline()
    key = next(iter(table.primary_key)).name
    return statement.on_duplicate_key_update({key: table.c[key]})


class MySQLImpl(AutocommitImpl):
    """MySQL 8 and MariaDB 10.5 or newer, with PyMySQL or mysqlclient."""

    max_parameters = 10_000

    def engine_options(self, url: URL) -> dict[str, Any]:
        if url.get_driver_name() not in _DRIVERS:
            return {}
        return {"connect_args": {name: value for name, value in ARGUMENTS.items() if name not in url.query}}

    def upsert(self, where: Put, columns: tuple[str, ...]) -> sa.Insert:
        return _upsert(where, columns)

    def insert_once(self, table: sa.Table, columns: tuple[str, ...]) -> sa.Insert:
        return _insert_once(table, columns)

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        """A named lock; DDL commits itself here, so the lock is held by the connection, not by a transaction."""
        database = connection.exec_driver_sql("SELECT DATABASE()").scalar_one()
        lock = hashlib.blake2b(f"{database}.{name}".encode(), digest_size=24).hexdigest()
        if connection.exec_driver_sql(f"SELECT GET_LOCK('{lock}', {LOCK_TIMEOUT})").scalar_one() != 1:
            raise exc.TimeoutError(f"waited {LOCK_TIMEOUT} s for another process to set up {name}")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK('{lock}')")

    def _is_transient(self, error: exc.DBAPIError, orig: BaseException) -> bool:
        return bool(orig.args) and orig.args[0] in TRANSIENT
