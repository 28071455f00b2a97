"""One question: a statement that only reads, within a time limit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from celery_sql_results.dialects import DefaultImpl, as_dicts
from celery_sql_results.models import Models
from celery_sql_results.rows.tasks import Columns, Row

__all__ = ["Asked", "TooLong", "Unanswerable", "time_of"]


def time_of(value: Any) -> datetime | None:
    """The time in a column. MySQL has dates that are none, such as one of zeros, which some drivers give as text."""
    return value if isinstance(value, datetime) else None


class TooLong(Exception):
    """The database did not answer within the time limit; the message says what to do."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the database did not answer within {seconds:g} s: narrow it down")
        self.seconds = seconds


class Unanswerable(Exception):
    """The database cannot tell what was asked for; the message says what that is."""


class Asked:
    """The database that questions are asked.

    Args:
        engine: an engine as :class:`~celery_sql_results.session.SessionManager` makes it.
        impl: how its database is spoken to.
        models: the tables.
        columns: what is there of them.
        seconds: the time limit of each statement.
    """

    def __init__(self, engine: Engine, impl: DefaultImpl, models: Models, columns: Columns, seconds: float) -> None:
        self.engine, self.impl, self.models, self.columns, self.seconds = engine, impl, models, columns, seconds

    def has(self, table: sa.Table, *names: str) -> bool:
        """Whether a table, and columns of it, are there and may be used."""
        found = self.columns.get(table)
        return bool(found) and found >= set(names)  # type: ignore[operator]

    def column(self, table: sa.Table, name: str) -> sa.ColumnElement[Any]:
        """A column; NULL, of its type, where the table lacks it."""
        column = table.c[name]
        return column if self.has(table, name) else sa.cast(sa.null(), column.type).label(name)

    def all(self, *statements: sa.Executable, values: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows that statements give, one after the other, as dicts.

        Raises:
            TooLong: one took longer than the time limit.
            sqlalchemy.exc.DBAPIError: the database could not be reached.
        """
        return self._ask(
            lambda connection: [row for each in statements for row in as_dicts(connection.execute(each, values or {}))]
        )

    def sizes(self) -> list[Row]:
        """Of each table that is there: about how many rows it has, how many bytes, and what is dead of it.

        Raises:
            TooLong: the database took longer than the time limit.
            sqlalchemy.exc.DBAPIError: the database could not be reached.
        """
        tables = [table for table in self.models.tables_for(self.impl) if self.columns.get(table)]
        return self._ask(lambda connection: self.impl.reads.sizes(connection, tables))

    def _ask(self, ask: Callable[[Connection], list[Row]]) -> list[Row]:
        try:
            with self.impl.reads.connect(self.engine, self.seconds) as connection:
                return ask(connection)
        except DBAPIError as error:
            if self.impl.is_timed_out(error):
                raise TooLong(self.seconds) from error
            raise

    def batches(self, statement: sa.Executable, ids: Collection[str], name: str = "ids_") -> list[Row]:
        """The rows of a statement that binds a list of ids, however many these are."""
        some, size = list(ids), self.impl.max_parameters
        found = (self.all(statement, values={name: some[at : at + size]}) for at in range(0, len(some), size))
        return [row for rows in found for row in rows]
