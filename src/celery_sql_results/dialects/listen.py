"""PostgreSQL's notifications: rows of waiters, and a connection that listens.

``NOTIFY`` takes one lock for the whole cluster until its transaction has ended, so it must not ride on every write
(measured in the design: a third of the throughput). A waiter leaves a row in an unlogged table. The write of a result
counts those rows, and only then the writer notifies, in a statement of its own after the commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Engine

__all__ = ["IDS", "PostgreSQLListener", "any_of", "counting_waiters", "leave_rows", "notify", "wake", "withdraw"]

#: The ids of a statement, bound as one array: the text stays the same however many there are, and is planned once.
IDS = sa.cast(sa.bindparam("ids_", type_=sa.ARRAY(sa.String)), sa.ARRAY(sa.String))
#: Losing a notification costs time, not a result: so its commit does not wait for the disk.
_NO_WAIT = sa.func.set_config(sa.literal_column("'synchronous_commit'"), sa.literal_column("'off'"), sa.true())


def any_of(column: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """``column`` is one of the ids that are bound as ``ids_``."""
    return column == sa.any_(IDS)


@lru_cache(maxsize=256)
def counting_waiters(upsert: sa.Insert, table: sa.Table, waiters: sa.Table) -> sa.Update:
    """The write of a result, whose row count is that of those who wait for it.

    RETURNING would tell as well, but a result set of its own costs every write more than this does.
    """
    put = upsert.returning(table.c.task_id).cte("put")
    return sa.update(waiters).where(waiters.c.awaited_id == put.c.task_id).values(date_added=waiters.c.date_added)


def leave_rows(found: sa.Select[Any], waiters: sa.Table, finished: Collection[str]) -> sa.Select[Any]:
    """``found``, the query for the rows of ``ids_``, which also leaves a row of a waiter for those not ``finished``.

    One statement, so one round trip; it binds ``ids_``, ``channel`` and ``date_added``.
    """
    rows = found.cte("found")
    wanted = sa.func.unnest(IDS).table_valued("task_id").render_derived()
    done = sa.exists().where(
        rows.c.task_id == wanted.c.task_id,
        rows.c.status.in_([sa.literal_column(f"'{state}'") for state in sorted(finished)]),
    )
    waiter = sa.select(
        wanted.c.task_id, sa.bindparam("channel", type_=sa.String), sa.bindparam("date_added", type_=sa.DateTime)
    ).where(~done)
    added = insert(waiters).from_select(["awaited_id", "channel", "date_added"], waiter).on_conflict_do_nothing()
    return sa.select(rows).add_cte(added.cte("added"))


def withdraw(waiters: sa.Table) -> sa.Delete:
    """Remove the rows that the waiter on ``channel_`` left for ``ids_``."""
    return sa.delete(waiters).where(any_of(waiters.c.awaited_id), waiters.c.channel == sa.bindparam("channel_"))


@lru_cache(maxsize=256)
def wake(waiters: sa.Table, finished: bool) -> sa.Select[Any]:
    """Notify who waits for the task bound as ``task_id_``; when it is finished, remove their rows as well."""
    mine = waiters.c.awaited_id == sa.bindparam("task_id_")
    if not finished:
        return sa.select(sa.func.pg_notify(waiters.c.channel, waiters.c.awaited_id), _NO_WAIT).where(mine)
    gone = sa.delete(waiters).where(mine).returning(waiters.c.channel, waiters.c.awaited_id).cte("gone")
    return sa.select(sa.func.pg_notify(gone.c.channel, gone.c.awaited_id), _NO_WAIT)


@cache
def notify() -> sa.Select[Any]:
    """Send the notification ``message_`` to ``channel_``."""
    return sa.select(sa.func.pg_notify(sa.bindparam("channel_"), sa.bindparam("message_")), _NO_WAIT)


class PostgreSQLListener:
    """A connection of psycopg 3 or psycopg2 that listens.

    Args:
        engine: an engine without a pool, since the connection is held.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Any = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def open(self, channel: str) -> None:
        with self._driver_errors():
            connection = self._engine.raw_connection()
            connection.cursor().execute(f'LISTEN "{channel}"')
        self._connection = connection

    @contextmanager
    def _driver_errors(self) -> Iterator[None]:
        """Behind SQLAlchemy's back the driver raises its own errors, whose classes nobody else knows."""
        try:
            yield
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise ConnectionError(str(error)) from error

    @property
    def _driver(self) -> Any:
        return self._connection.driver_connection

    def fileno(self) -> int:
        with self._driver_errors():
            number: int = self._driver.fileno()
        return number

    def received(self) -> list[str]:
        with self._driver_errors():
            return self._received()

    def _received(self) -> list[str]:
        if hasattr(self._driver, "pgconn"):  # psycopg 3
            self._driver.pgconn.consume_input()
            return [message.extra.decode() for message in iter(self._driver.pgconn.notifies, None)]
        self._driver.poll()
        messages, self._driver.notifies = self._driver.notifies, []
        return [message.payload for message in messages]

    def ping(self) -> None:
        with self._driver_errors():
            self._connection.cursor().execute("SELECT 1")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # nothing to be put back: the server forgets the channel with the connection

    def copy(self) -> PostgreSQLListener:
        return PostgreSQLListener(self._engine)
