"""The driver's own connection, for the statements of the hot path.

SQLAlchemy compiles a statement once and hands out its pooled connections here as well. What is left out is its
execution, which costs as much as the driver's: so nothing is told to those who listen to the engine's events, which
whoever uses this checks, and values pass as they are: they must be of the types of their columns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import exc
from sqlalchemy.engine import Dialect, Engine
from typing_extensions import Self

from .pool import check_out
from .psycopg3 import statements_of

__all__ = ["DirectConnection"]


class _Compiled(NamedTuple):
    """The text of a statement, the names of its values, those that it brings along, and the names of its columns.

    The driver knows the names as well, but makes an object of each with every result.
    """

    text: str
    values: tuple[str, ...]
    brought: Mapping[str, Any]
    columns: tuple[str, ...]


@lru_cache(maxsize=256)
def _compiled(statement: Any, dialect: Dialect) -> _Compiled:
    compiled = statement.compile(dialect=dialect)
    brought = {name: value for name, value in compiled.params.items() if value is not None}
    columns = tuple(statement.selected_columns.keys()) if statement.is_select else ()
    return _Compiled(str(compiled), tuple(compiled.params), brought, columns)


class DirectResult:
    """What a statement has given; the part of SQLAlchemy's result that the hot path asks for."""

    def __init__(self, names: tuple[str, ...], rows: list[Any], rowcount: int) -> None:
        self._names = names
        self._rows = rows
        self.rowcount = rowcount

    def keys(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self._names

    def __iter__(self) -> Iterator[Any]:
        """The rows, as tuples."""
        return iter(self._rows)


class DirectConnection:
    """A pooled connection in autocommit, for the length of a block."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Self:
        self._pool = self._engine.pool
        try:
            self._entry = check_out(self._pool)
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise self._told(error, None, None, lost=False) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is not None and not issubclass(kind, exc.SQLAlchemyError):
            self._entry.invalidate(error)  # a time limit may have struck in the middle of a statement
        self._pool._do_return_conn(self._entry)

    def execute(self, statement: Any, values: Mapping[str, Any]) -> DirectResult:
        """Run a statement that binds its values by name.

        Raises:
            sqlalchemy.exc.DBAPIError: as SQLAlchemy's own connection raises it.
        """
        text, names, brought, columns = _compiled(statement, self._engine.dialect)
        if brought:
            values = {**brought, **values}
        entry, cursor = self._entry, None
        try:
            statements = statements_of(entry)
            if statements is not None:
                return DirectResult(columns, *statements.run(text, names, values, bool(columns)))
            cursor = entry.dbapi_connection.cursor()
            cursor.execute(text, values)
            return DirectResult(columns, cursor.fetchall() if columns else [], cursor.rowcount)
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise self._told(error, text, values, lost=self._is_lost(error, cursor)) from error

    def _is_lost(self, error: Any, cursor: Any) -> bool:
        """Whether the server is gone. Then so are all connections of the pool."""
        lost = self._engine.dialect.is_disconnect(error, self._entry.dbapi_connection, cursor)
        if lost:
            self._entry.invalidate(error)
            self._pool._invalidate_time = time.time()
        return lost

    def _told(self, error: Any, text: str | None, values: Any, lost: bool) -> BaseException:
        """The error as SQLAlchemy tells it: it has the values, and does not show them."""
        dialect = self._engine.dialect
        told: BaseException = exc.DBAPIError.instance(
            text,
            values,
            error,
            dialect.loaded_dbapi.Error,
            hide_parameters=True,
            connection_invalidated=lost,
            dialect=dialect,
        )
        return told
