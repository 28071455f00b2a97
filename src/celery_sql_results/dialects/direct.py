"""The driver's own cursor, for the statements of the hot path.

SQLAlchemy compiles a statement once and hands out its pooled connections here as well. What is left out is its
execution, which costs as much as the driver's: so nothing is told to those who listen to the engine's events, and
values pass as they are. Both is checked by whoever uses this.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import exc
from sqlalchemy.engine import Dialect, Engine
from typing_extensions import Self

from .pool import check_out

__all__ = ["CURSORS", "DirectConnection"]

#: Under what an entry of the pool keeps the cursors of its connection, by the text that they run. That of psycopg 3
#: knows how to pass each type of value when it runs the same again: a third of its time.
CURSORS = "celery_sql_results.cursors"
#: A cursor holds on to what it was last given and gave. It is kept if no value is a list, or longer than this.
_LIGHT = 10_000
_SIZED = frozenset({bytes, memoryview, str})


class _Compiled(NamedTuple):
    """The text of a statement, the values that it brings along, and the names of the columns of its rows.

    The driver knows the names as well, but makes an object of each with every result.
    """

    text: str
    brought: Mapping[str, Any]
    names: tuple[str, ...]


@lru_cache(maxsize=256)
def _compiled(statement: Any, dialect: Dialect) -> _Compiled:
    compiled = statement.compile(dialect=dialect)
    brought = {name: value for name, value in compiled.params.items() if value is not None}
    names = tuple(statement.selected_columns.keys()) if statement.is_select else ()
    return _Compiled(str(compiled), brought, names)


def _is_light(values: Iterable[Any]) -> bool:
    for value in values:
        kind = type(value)
        if kind is list or (kind in _SIZED and len(value) > _LIGHT):
            return False
    return True


class DirectResult:
    """What a statement has given; the part of SQLAlchemy's result that the hot path asks for."""

    def __init__(self, cursor: Any, names: tuple[str, ...]) -> None:
        self._names = names
        self._rows: list[Any] = cursor.fetchall() if names else []
        self.rowcount: int = cursor.rowcount

    @property
    def is_light(self) -> bool:
        """Whether this is a short row at most."""
        rows = self._rows
        return not rows or (len(rows) == 1 and _is_light(rows[0]))

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
        self._pool._return_conn(self._entry)

    def execute(self, statement: Any, values: Mapping[str, Any]) -> DirectResult:
        """Run a statement that binds its values by name.

        Raises:
            sqlalchemy.exc.DBAPIError: as SQLAlchemy's own connection raises it.
        """
        text, brought, names = _compiled(statement, self._engine.dialect)
        cursors = self._entry.info.setdefault(CURSORS, {})
        cursor = cursors.pop(text, None)
        try:
            cursor = cursor or self._entry.dbapi_connection.cursor()
            cursor.execute(text, {**brought, **values} if brought else values)
            result = DirectResult(cursor, names)
            if _is_light(values.values()) and result.is_light:
                cursors[text] = cursor
            return result
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
