"""PostgreSQL's notifications: rows of waiters, and a connection that listens.

``NOTIFY`` takes one lock for the whole cluster until its transaction has ended, so it must not ride on every write: 32
writers were left with less than a third of their throughput. A waiter leaves a row in an unlogged table. The write of a
result looks whether there is one, and only then the writer notifies, in a statement of its own after the commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Engine

from celery_sql_results.boundaries import undone

from .puts import Put
from .upserts import guarded, on_conflict_upsert

__all__ = [
    "NO_WAIT",
    "PART",
    "PostgreSQLListener",
    "any_of",
    "leave_rows",
    "notify",
    "sweep",
    "unless_awaited",
    "wake",
    "with_part",
]

#: Functions by their full names, so that nobody else's are called.
OWN = sa.func.pg_catalog
#: For statements that a crash may undo, such as a notification, which costs time, not a result: the commit does not
#: wait for the disk.
NO_WAIT = OWN.set_config(sa.literal_column("'synchronous_commit'"), sa.literal_column("'off'"), sa.true())
#: The time by the clock of the server: those of hosts differ.
NOW = OWN.timezone(sa.literal_column("'UTC'"), OWN.now(), type_=sa.DateTime)
#: The row of a waiter that is younger is as good as a new one.
YOUNG = sa.literal_column("interval '5 seconds'", sa.Interval)

#: What the names of the values of a part begin with, beside those of the row.
PART = "part_"


def ids(name: str = "ids_") -> sa.Cast[Any]:
    """The ids of a statement, bound as one array: its text is the same however many there are, and is planned once."""
    return sa.cast(sa.bindparam(name, type_=sa.ARRAY(sa.String)), sa.ARRAY(sa.String))


def any_of(column: sa.ColumnElement[str], name: str = "ids_") -> sa.ColumnElement[bool]:
    """``column`` is one of the ids that are bound under a name."""
    return column == sa.any_(ids(name))


def unless_awaited(where: Put, columns: tuple[str, ...]) -> sa.Insert:
    """The write of a row that nobody waits for: nothing is written if somebody does, and the row count tells.

    One look into the index of a table that is empty as a rule; a result set would cost the writer more than the rest.
    """
    values = {name: sa.cast(sa.bindparam(name), _unbounded(where.table.c[name].type)) for name in columns}
    awaited = sa.exists().where(where.waiters.c.awaited_id == sa.bindparam(where.key))  # type: ignore[union-attr]
    new = sa.select(*(value.label(name) for name, value in values.items())).where(~awaited)
    statement = guarded(insert(where.table).from_select(list(columns), new), where, columns)
    return statement.execution_options(preserve_rowcount=True)  # which SQLAlchemy gives up for an INSERT … SELECT


def _unbounded(type_: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """A cast to a type with a length would cut off what is too long, where the column refuses it."""
    return sa.String() if isinstance(type_, sa.String) else type_


def with_part(where: Put, columns: tuple[str, ...], parts: Put, of_part: tuple[str, ...]) -> Any:
    """The write of a row and of a part of a chord, in one statement; its row count is that of those who wait."""
    upsert = on_conflict_upsert(insert, where, columns)
    part = on_conflict_upsert(insert, parts, of_part, PART).cte("part")
    if where.waiters is None:
        return upsert.add_cte(part)
    put, waiters = upsert.returning(where.table.c[where.key]).cte("put"), where.waiters
    awaited = sa.update(waiters).where(waiters.c.awaited_id == put.c[where.key]).add_cte(part)
    return awaited.values(date_added=waiters.c.date_added)


def leave_rows(found: sa.Select[Any], waiters: sa.Table, finished: Collection[str]) -> sa.Select[Any]:
    """``found``, the query for the rows of ``ids_``, which also leaves a row of a waiter for those not ``finished``.

    A row that is there already is renewed. One statement, so one round trip; it binds ``ids_`` and ``channel``.
    """
    wanted = OWN.unnest(ids()).table_valued("task_id").render_derived()
    return _leaving(wanted.c.task_id, found, waiters, finished)


def leave_row(found: sa.Select[Any], waiters: sa.Table, finished: Collection[str]) -> sa.Select[Any]:
    """:func:`leave_rows` of one task, bound as ``id_``: the server plans it once, and one with a list each time."""
    return _leaving(sa.bindparam("id_", type_=sa.String), found, waiters, finished)


def _leaving(
    wanted: sa.ColumnElement[str], found: sa.Select[Any], waiters: sa.Table, finished: Collection[str]
) -> sa.Select[Any]:
    rows = found.cte("found")
    final = sa.or_(*(rows.c.status == sa.literal_column(f"'{state}'") for state in sorted(finished)))
    done = sa.exists().where(rows.c.task_id == wanted, final)
    waiter = sa.select(wanted, sa.bindparam("channel", type_=sa.String), NOW).where(~done)
    left = insert(waiters).from_select(["awaited_id", "channel", "date_added"], waiter)
    is_old = waiters.c.date_added < NOW - YOUNG  # many threads on one task do not write its row again and again
    added = left.on_conflict_do_update(
        index_elements=[waiters.c.awaited_id, waiters.c.channel], set_={"date_added": NOW}, where=is_old
    )
    return sa.select(rows).add_cte(added.cte("added"))


def withdraw(waiters: sa.Table) -> sa.Delete:
    """Remove the rows that the waiter on ``channel_`` left for ``ids_``."""
    return sa.delete(waiters).where(any_of(waiters.c.awaited_id), waiters.c.channel == sa.bindparam("channel_"))


def sweep(waiters: sa.Table) -> sa.Delete:
    """Remove the rows that nobody has renewed for ``seconds_``."""
    seconds = sa.bindparam("seconds_", type_=sa.Float)
    age = OWN.make_interval(0, 0, 0, 0, 0, 0, seconds, type_=sa.Interval)
    return sa.delete(waiters).where(waiters.c.date_added < NOW - age)


def wake(waiters: sa.Table, finished: bool) -> sa.Executable:
    """Notify who waits for the task bound as ``task_id_``; when it is finished, remove their rows as well."""
    mine = waiters.c.awaited_id == sa.bindparam("task_id_")
    notified = OWN.pg_notify(waiters.c.channel, waiters.c.awaited_id)
    if finished:
        return sa.delete(waiters).where(mine).returning(notified, NO_WAIT)
    return sa.select(notified, NO_WAIT).where(mine)


@cache
def notify() -> sa.Select[Any]:
    """Send the notification ``message_`` to ``channel_``."""
    return sa.select(OWN.pg_notify(sa.bindparam("channel_"), sa.bindparam("message_")), NO_WAIT)


def _text(message: bytes, encoding: str) -> str:
    """A message in the encoding of its connection. What is no text there is no id either, so nobody waits for it."""
    return message.decode("utf-8" if encoding == "ascii" else encoding, "backslashreplace")


class PostgreSQLListener:
    """A connection of psycopg 3 or psycopg2 that listens.

    Args:
        engine: an engine without a pool, since the connection is held.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Any = None
        self._driver: Any = None

    def open(self, channel: str) -> None:
        with self._driver_errors():
            connection = self._engine.raw_connection()
            with undone(connection.invalidate):
                connection.cursor().execute(f'LISTEN "{channel}"')
        self._connection, self._driver = connection, connection.driver_connection

    @contextmanager
    def _driver_errors(self) -> Iterator[None]:
        """Behind SQLAlchemy's back the driver raises its own errors, whose classes nobody else knows."""
        try:
            yield
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise ConnectionError(str(error)) from error

    def fileno(self) -> int:
        with self._driver_errors():
            number: int = self._driver.fileno()
        return number

    def received(self) -> list[str]:
        with self._driver_errors():
            return self._received()

    def _received(self) -> list[str]:
        server = getattr(self._driver, "pgconn", None)
        if server is not None:  # psycopg 3
            server.consume_input()
            return [_text(message.extra, self._driver.info.encoding) for message in iter(server.notifies, None)]
        self._driver.poll()
        messages, self._driver.notifies = self._driver.notifies, []
        return [message.payload for message in messages]

    def close(self) -> None:
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            connection.invalidate()  # nothing to be put back: the server forgets the channel with the connection

    def copy(self) -> PostgreSQLListener:
        return PostgreSQLListener(self._engine)
