"""What people ask of a database to set it up and to tend it: is it as it should be, what must a role be granted.

:class:`Tending` is portable; a subclass holds what its database knows better.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .inspection import schema_of

__all__ = ["Bloat", "Tending", "Unfit"]

#: The largest number of a column of 32 bits.
LAST_OF_32_BITS = 2**31 - 1


class Unfit(NamedTuple):
    """A column that is of another kind than it should be.

    Attributes:
        column: its name.
        found: what it is, as the database writes it.
        needed: what it should be.
        hurts: whether results are lost or cut off by it; else it only costs something, or may do so one day.
        sql: what changes it.
    """

    column: str
    found: str
    needed: str
    hurts: bool
    sql: str


class Bloat(NamedTuple):
    """Rows of a table that are deleted or replaced, and still take room: how many, beside how many that live.

    ``is_swept`` tells whether the database removes them by itself.
    """

    dead: int
    live: int
    is_swept: bool


class Tending:
    """A database that we know nothing of."""

    #: ``CREATE SCHEMA IF NOT EXISTS`` makes what names of tables may begin with.
    creates_schemas = False
    #: A role must be granted the use of a schema as well.
    grants_schemas = False
    #: The oldest release that should be used.
    least: tuple[int, ...] = ()
    #: What a GRANT says of a sequence, up to its name, so that a role sees that it is there; none where all do.
    sequence_seen: str | None = None
    #: Sessions are as strict as can be, which costs nothing.
    is_always_strict = False
    #: Why there are no rights to grant; ``None`` if there are.
    without_roles: str | None = "how rights are granted on this database is not known"
    #: What a role needs beside DELETE to delete what has expired.
    to_clean: tuple[str, ...] = ("SELECT",)

    def as_if_connected(self, dialect: sa.Dialect) -> None:
        """Let a dialect that was never connected be as it is on a server of a usual release."""

    def grantee(self, dialect: sa.Dialect, role: str) -> str:
        """A role, as a GRANT names it."""
        return dialect.identifier_preparer.quote(role)

    def largest_id(self, connection: Connection, table: sa.Table) -> int | None:
        """The last id that a table, which is there, can have; ``None`` if there are so many that none is the last."""
        columns = sa.inspect(connection).get_columns(table.name, schema_of(connection, table))
        kind = next(column["type"] for column in columns if column["name"].lower() == "id")
        return LAST_OF_32_BITS if isinstance(kind, sa.Integer) and not isinstance(kind, sa.BigInteger) else None

    def clock(self, connection: Connection) -> datetime | None:
        """The time of the server in UTC; ``None`` if it has no clock of its own, or none that we know of."""
        return None

    def connection_limit(self, connection: Connection) -> int | None:
        """How many connections this role may have at most; ``None`` if that is not known."""
        return None

    def isolation(self, connection: Connection) -> str | None:
        """The isolation level of a new session, unless it asks for another."""
        return connection.default_isolation_level

    def bloat(self, connection: Connection, table: sa.Table) -> Bloat | None:
        """What of a table is waste, where the database counts that."""
        return None

    def unfit(self, connection: Connection, table: sa.Table) -> Iterator[Unfit]:
        """The columns of a table that are of another kind than they should be, where that matters."""
        columns = sa.inspect(connection).get_columns(table.name, schema_of(connection, table))
        there: dict[str, Any] = {column["name"]: column["type"] for column in columns}
        for column in table.columns:
            if column.name in there:
                yield from self._compared(connection, column, there[column.name])

    def _compared(self, connection: Connection, column: sa.Column[Any], found: Any) -> Iterator[Unfit]:
        is_short = isinstance(column.type, sa.String) and (found_length(found) or 1e9) < (column.type.length or 1e9)
        is_small = isinstance(column.type, sa.BigInteger) and _is_32_bits(found)
        is_zoned = isinstance(found, sa.DateTime) and found.timezone
        if is_short or is_small or is_zoned:
            yield self._unfit(connection, column, str(found.compile(connection.dialect)), is_short)

    def _unfit(self, connection: Connection, column: sa.Column[Any], found: str, hurts: bool) -> Unfit:
        needed = column.type.compile(connection.dialect)
        return Unfit(column.name, found, needed, hurts, self._alter(connection, column, needed))

    def _alter(self, connection: Connection, column: sa.Column[Any], needed: str) -> str:
        quoted = connection.dialect.identifier_preparer
        table, name = quoted.format_table(column.table), quoted.format_column(column)
        return f"ALTER TABLE {table} ALTER COLUMN {name} TYPE {needed}"


def found_length(kind: Any) -> int | None:
    """How many characters a column takes, if that is limited."""
    length: int | None = getattr(kind, "length", None)
    return length


def _is_32_bits(kind: Any) -> bool:
    return isinstance(kind, sa.Integer) and not isinstance(kind, sa.BigInteger)
