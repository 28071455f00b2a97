"""What a task hands over to be written in: each kind of session and connection, made alike."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple, Protocol
from weakref import ref

import sqlalchemy as sa
from sqlalchemy.orm import Session, scoped_session

from celery_sql_results.errors import CannotComplete

__all__ = ["Handed", "handed_over"]

#: How values may stand in a statement by their names, by the ``paramstyle`` of a driver that takes that beside its own.
BY_NAME: Mapping[str, str] = {
    "format": "pyformat",
    "named": "named",
    "numeric": "named",
    "pyformat": "pyformat",
    "qmark": "named",
}
#: What a dialect has of the way that its driver binds.
OF_DRIVER = frozenset({"paramstyle", "positional"})
#: Our tables stand in their own schema, wherever those of the task are. And the rows that an INSERT has written count.
OPTIONS: Mapping[str, Any] = {"schema_translate_map": None, "preserve_rowcount": True}


class Handed(Protocol):
    """A connection that somebody else begins and ends transactions on."""

    #: SQLAlchemy's name of its database, if that is known.
    kind: str | None

    def execute(self, statement: Any, values: Mapping[str, Any]) -> Any:
        """Run a statement; what it gives has ``rowcount``, and its rows are tuples."""

    @property
    def driver_connection(self) -> Any:
        """The driver's own connection; ``None`` if it is gone."""

    @property
    def is_over(self) -> bool | None:
        """Whether the transaction that was written in has ended; ``None`` where only the driver knows."""

    def roll_back(self) -> None:
        """End what was left open."""


class OfSQLAlchemy:
    """A connection of SQLAlchemy, or that of a session."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.engine = connection.engine
        self.kind: str | None = connection.dialect.name
        self._transaction: Any = None

    def execute(self, statement: Any, values: Mapping[str, Any]) -> Any:
        done = self._connection.execute(statement, values, execution_options=OPTIONS)
        self._transaction = self._connection.get_transaction()
        return done

    @property
    def driver_connection(self) -> Any:
        return self._connection.connection.dbapi_connection

    @property
    def is_over(self) -> bool:
        return not self._transaction.is_active

    def roll_back(self) -> None:
        self._transaction.rollback()


class Answer(NamedTuple):
    """What a statement on a cursor has given."""

    rows: list[tuple[Any, ...]]
    rowcount: int

    def __iter__(self) -> Iterator[tuple[Any, ...]]:  # type: ignore[override]
        return iter(self.rows)


class OfDriver:
    """A connection of a driver. It is not kept: whoever drops it ends its transaction.

    Args:
        connection: by the DB-API.
        dialect: SQLAlchemy's, of the result backend.
    """

    kind: str | None = None

    def __init__(self, connection: Any, dialect: sa.Dialect) -> None:
        self._find = _weakly(connection)
        self._dialect = _named(dialect, BY_NAME[_paramstyle(connection) or ""])

    def execute(self, statement: Any, values: Mapping[str, Any]) -> Answer:
        text, brought, processors = _compiled(statement, self._dialect)
        values = {**brought, **values}
        values.update((name, process(values[name])) for name, process in processors.items())
        with closing(self.driver_connection.cursor()) as cursor:
            cursor.execute(text, values)
            found = cursor.fetchall() if cursor.description else []
            return Answer([tuple(row.values() if isinstance(row, Mapping) else row) for row in found], cursor.rowcount)

    @property
    def driver_connection(self) -> Any:
        return self._find()

    @property
    def is_over(self) -> bool | None:
        return True if self.driver_connection is None else None

    def roll_back(self) -> None:
        self.driver_connection.rollback()


class OfDjango(OfDriver):
    """A connection of Django, which knows by itself whether it is in ``atomic()``."""

    def __init__(self, wrapper: Any, dialect: sa.Dialect) -> None:
        if not wrapper.in_atomic_block:
            raise CannotComplete(
                f"the Django connection {wrapper.alias!r} is not in a transaction, so that nothing would be stored "
                f"together: call complete() inside of `with transaction.atomic(using={wrapper.alias!r})`"
            )
        wrapper.ensure_connection()
        super().__init__(wrapper.connection, dialect)
        self._wrapper, self.kind = wrapper, wrapper.vendor

    @property
    def is_over(self) -> bool:
        return not self._wrapper.in_atomic_block

    def roll_back(self) -> None:
        self._wrapper.close()


def handed_over(given: Any, dialect: Callable[[], sa.Dialect]) -> Handed:
    """What can be written in, of what a task has handed over.

    Raises:
        CannotComplete: it is nothing of the kind, or a connection of Django that is in no transaction.
    """
    if isinstance(given, (Session, scoped_session)):
        return OfSQLAlchemy(given.connection())
    if isinstance(given, sa.Connection):
        return OfSQLAlchemy(given)
    if hasattr(given, "in_atomic_block") and hasattr(given, "ensure_connection"):
        return OfDjango(given, dialect())
    is_async = inspect.iscoroutinefunction(getattr(given, "commit", None))
    if _paramstyle(given) in BY_NAME and hasattr(given, "cursor") and not is_async:
        return OfDriver(given, dialect())
    advice = ", that is not async" if is_async else ""
    raise CannotComplete(
        f"complete() was given {type(given).__module__}.{type(given).__qualname__}, but it needs a Session or "
        f"Connection of SQLAlchemy, a connection of Django, or one of a driver{advice}"
    )


def _paramstyle(connection: Any) -> str | None:
    """That of the driver whose class a connection is of, or of a subclass."""
    for kind in type(connection).__mro__:
        for name in accumulate(kind.__module__.split("."), "{}.{}".format):
            style: str | None = getattr(sys.modules.get(name), "paramstyle", None)
            if style is not None:
                return style
    return None


def _weakly(connection: Any) -> Callable[[], Any]:
    try:
        return ref(connection)
    except TypeError:
        return lambda: connection


@lru_cache(maxsize=16)
def _named(dialect: Any, paramstyle: str) -> sa.Dialect:
    """A dialect like another, with what that has learned of its server, whose statements bind by name.

    It has no driver, so that bytes stay as they are.
    """
    made: sa.Dialect = type(dialect)(paramstyle=paramstyle)
    learned = {name: value for name, value in vars(dialect).items() if isinstance(value, (bool, int, tuple))}
    vars(made).update({name: value for name, value in learned.items() if name not in OF_DRIVER})
    return made


@lru_cache(maxsize=64)
def _compiled(statement: Any, dialect: Any) -> tuple[str, dict[str, Any], dict[str, Callable[[Any], Any]]]:
    """The text of a statement, the values that it brings along, and what is done to others first."""
    compiled = statement.compile(dialect=dialect)
    brought = {name: value for name, value in compiled.params.items() if value is not None}
    found = ((name, bind.type.dialect_impl(dialect)) for name, bind in compiled.binds.items())
    processors = ((name, kind.bind_processor(dialect)) for name, kind in found)
    return str(compiled), brought, {name: process for name, process in processors if process is not None}
