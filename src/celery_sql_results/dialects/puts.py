"""Where a row is put, and the portable statements that put it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from .types import NullableBlob

__all__ = ["Put", "Row", "as_dicts", "insert", "may_replace", "update"]

Row = Mapping[str, Any]


class Put:
    """Where a row is put, and what it may replace there. It is kept by whoever puts more than one.

    Attributes:
        table: the table, and ``key`` the name of its unique column, or of one of those of its primary key.
        keys: the names of all columns that tell one row from another.
        protected: states that may not be replaced.
        waiters: where those who wait for the row have left theirs, if anybody may.
    """

    __slots__ = ("_made", "key", "keys", "protected", "table", "waiters")

    def __init__(
        self, table: sa.Table, key: str, protected: tuple[str, ...] = (), waiters: sa.Table | None = None
    ) -> None:
        self.table, self.key, self.protected, self.waiters = table, key, protected, waiters
        primary = tuple(table.primary_key.columns.keys())
        self.keys = primary if key in primary else (key,)
        self._made: dict[Any, Any] = {}

    def statement(self, make: Callable[..., Any], *args: Any) -> Any:
        """What ``make(self, *args)`` builds, which is built once and ends with this."""
        made = self._made.get((make, args))
        if made is None:
            made = self._made[make, args] = make(self, *args)
        return made


def as_dicts(result: Any) -> list[Row]:
    """The rows that a statement has given, by the names of its columns."""
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]


def may_replace(where: Put) -> sa.ColumnElement[bool]:
    """The guard of a write: the stored status is none of those that are protected.

    The states are written into the text, not bound: they are Celery's constants, and a fixed text is prepared once.
    """
    if not where.protected:
        return sa.true()
    status = sa.func.coalesce(where.table.c.status, sa.literal_column("''"))
    return sa.and_(*(status != sa.literal_column(f"'{state}'") for state in where.protected))


def update(where: Put, columns: tuple[str, ...]) -> sa.Update:
    """UPDATE the row of one key, if the guard lets it. The key's values are bound by their names and ``_``."""
    table = where.table
    new = {column: _bound(table, column) for column in columns if column not in where.keys}
    same = (table.c[key] == sa.bindparam(f"{key}_") for key in where.keys)
    return sa.update(table).where(*same, may_replace(where)).values(new)


def insert(where: Put, columns: tuple[str, ...]) -> sa.Insert:
    """INSERT a row, and ask for nothing back."""
    return sa.insert(where.table).values({column: _bound(where.table, column) for column in columns}).inline()


def _bound(table: sa.Table, column: str) -> sa.BindParameter[Any]:
    """A value for a column, which may be one of a table of the user's own."""
    is_blob = isinstance(table.c[column].type, sa.LargeBinary)
    return sa.bindparam(column, type_=NullableBlob() if is_blob else table.c[column].type)
