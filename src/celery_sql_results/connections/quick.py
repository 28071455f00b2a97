"""The driver's own connection, for the statements of the hot path.

SQLAlchemy compiles a statement once and hands out its pooled connections here as well. What is left out is its
execution, which costs as much as the driver's: so nothing is told to those who listen to the engine or read its log,
nor are its execution options heeded. :func:`quick_path` gives none wherever that would make a difference; then
SQLAlchemy's own way is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from weakref import ref

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Dialect, Engine
from typing_extensions import Self

from celery_sql_results._compat import COMPILED, PSYCOPG, QUICK, are_there

from .cursors import CursorStatements
from .pool import PingingPool, connected
from .psycopg3 import Outdated, Statements

__all__ = ["DirectConnection", "Way", "quick_path"]

#: The execution options that an engine may have: each connection is in autocommit before anybody uses it.
ALLOWED: Final[tuple[dict[str, str], ...]] = ({}, {"isolation_level": "AUTOCOMMIT"})
#: How values may stand in a statement by their names; a driver that has another usual way must know ``named`` as well.
BY_NAME: Final = ("pyformat", "named")
#: Under what an entry of the pool keeps the statements of its connection.
STATEMENTS = "celery_sql_results.statements"


class Way(NamedTuple):
    """How the statements of one driver are run.

    Attributes:
        dialect: SQLAlchemy's class for the driver, and ``paramstyle`` how values stand in its statements.
        statements_of: what runs statements on a connection; ``None`` if that is not as the driver makes it by itself.
        takes_all: the driver takes the values of our columns as they are.
    """

    dialect: type[Dialect]
    paramstyle: str
    statements_of: Callable[[Any], Statements | CursorStatements | None]
    takes_all: bool = False

    def is_for(self, dialect: Any) -> bool:
        """Whether a dialect is SQLAlchemy's own for the driver; for MariaDB, it makes one when it is asked for."""
        is_own = isinstance(dialect, self.dialect) and type(dialect).__module__.startswith("sqlalchemy.")
        needed = PSYCOPG if self.takes_all else COMPILED
        return is_own and not dialect.is_async and dialect.paramstyle == self.paramstyle and are_there(needed)


class _Compiled(NamedTuple):
    """The text of a statement, the names of its values, those that it brings along, and the names of its columns.

    The driver knows the names as well, but makes an object of each with every result. What it does not take as it is,
    is processed.
    """

    text: str
    values: tuple[str, ...]
    brought: Mapping[str, Any]
    columns: tuple[str, ...]
    processors: Mapping[str, Callable[[Any], Any]]
    watch: Any  # on the statement: when it goes, this is forgotten


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


class QuickPath:
    """The statements of one engine with a pool of ours, by the driver's own connections."""

    def __init__(self, engine: Engine, pool: PingingPool, way: Way) -> None:
        self.engine, self.pool, self._way = engine, pool, way
        self.dialect: Any = engine.dialect
        self.options = engine.get_execution_options()
        self.log = _log("sqlalchemy.engine.Engine", engine.logging_name)
        self.pool_log = _log("sqlalchemy.pool.impl.QueuePool", pool.logging_name)
        #: Whether everything is as it is known to be; an unknown kind of connection is a reason why not.
        self.is_known = (
            way.is_for(self.dialect) and dict(self.options) in ALLOWED and pool.echo != "debug" and are_there(QUICK)
        )
        self._compiled: dict[int, _Compiled] = {}
        #: What compiles statements so that they take values by their names.
        self._by_name: Any = self.dialect
        if self.is_known and self.dialect.paramstyle not in BY_NAME:
            make: Any = type(self.dialect)
            self._by_name = make(paramstyle="named")

    def compiled(self, statement: Any) -> _Compiled:
        """What is sent of a statement: looked up by its identity, and forgotten when it goes."""
        found = self._compiled.get(id(statement))
        return found or self._compile(statement)

    def _compile(self, statement: Any) -> _Compiled:
        key, known, compiled = id(statement), self._compiled, statement.compile(dialect=self._by_name)
        brought = {name: value for name, value in compiled.params.items() if value is not None}
        columns = tuple(statement.selected_columns.keys()) if isinstance(statement, sa.SelectBase) else ()
        processors = {} if self._way.takes_all else dict(compiled._bind_processors)
        watch = ref(statement, lambda _: known.pop(key, None))
        made = known[key] = _Compiled(str(compiled), tuple(compiled.params), brought, columns, processors, watch)
        return made

    def statements_of(self, entry: Any) -> Statements | CursorStatements | None:
        """Those of the connection of an entry of the pool, which it keeps; ``None`` if nothing is known of it."""
        info = entry.info
        if STATEMENTS not in info:
            info[STATEMENTS] = self._way.statements_of(entry.dbapi_connection)
        found: Statements | CursorStatements | None = info[STATEMENTS]
        return found

    def told(self, error: Any, text: str | None, values: Any, lost: bool) -> BaseException:
        """The error as SQLAlchemy tells it: it has the values, and does not show them unless the engine may."""
        told: BaseException = exc.DBAPIError.instance(
            text,
            values,
            error,
            self.dialect.loaded_dbapi.Error,
            hide_parameters=self.engine.hide_parameters,
            connection_invalidated=lost,
            dialect=self.dialect,
        )
        return told


def _log(name: str, own: str | None) -> logging.Logger:
    """Where an engine or a pool logs, which may have a name of its own."""
    return logging.getLogger(f"{name}.{own}" if own else name)


def _is_told(dispatch: Any) -> bool:
    """Whether somebody listens to a dialect: not to how it connects, which is the same here."""
    return bool(dispatch.do_execute or dispatch.do_setinputsizes or dispatch.handle_error)


def quick_path(engine: Engine, way: Way) -> QuickPath | None:
    """The quick path of an engine, if it is the same as SQLAlchemy's own way.

    Also for those who began to listen or to log just now: so this is asked each time.
    """
    pool: Any = engine.pool
    if type(pool) is not PingingPool:
        return None
    quick: QuickPath | None = pool.quick
    if quick is None or quick.engine is not engine:
        quick = pool.quick = QuickPath(engine, pool, way)
    listeners, dialect = pool.dispatch, quick.dialect
    is_closed = (
        not quick.is_known
        or engine._has_events
        or engine.get_execution_options() is not quick.options
        or engine.echo
        or listeners.checkout
        or listeners.checkin
        or listeners.reset
        or (dialect._has_events and _is_told(dialect.dispatch))
        or quick.log.isEnabledFor(logging.INFO)
        or quick.pool_log.isEnabledFor(logging.DEBUG)
    )
    return None if is_closed else quick


class DirectConnection:
    """A pooled connection in autocommit, for the length of a block.

    A connection that is not the driver's own, whose statements nobody knows here, is used by SQLAlchemy.
    """

    def __init__(self, quick: QuickPath) -> None:
        self._quick = quick

    def __enter__(self) -> Self | Connection:
        quick = self._quick
        try:
            self._entry = entry = quick.pool.take()
        except quick.dialect.loaded_dbapi.Error as error:
            lost = quick.dialect.is_disconnect(error, None, None)
            raise quick.told(error, None, None, lost) from error
        try:
            statements = quick.statements_of(entry)
        except BaseException as error:  # a time limit strikes anywhere: the pool must not have one less for good
            self.__exit__(type(error), error, None)
            raise
        if statements is None:
            return self._enter_otherwise()
        self._statements: Any = statements
        return self

    def _enter_otherwise(self) -> Connection:
        self._quick.is_known = False
        self._quick.pool.give_back(self._entry)
        self._entry, self._other = None, connected(self._quick.engine)
        return self._other.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool | None:
        if self._entry is None:
            return self._other.__exit__(kind, error, trace)
        if kind is not None and not issubclass(kind, exc.SQLAlchemyError):
            self._entry.invalidate(error)  # a time limit may have struck in the middle of a statement
        self._quick.pool.give_back(self._entry)
        return None

    def execute(self, statement: Any, values: Mapping[str, Any]) -> DirectResult:
        """Run a statement that binds its values by name.

        Raises:
            sqlalchemy.exc.DBAPIError: as SQLAlchemy's own connection raises it.
        """
        text, names, brought, columns, processors, _ = self._quick.compiled(statement)
        if brought:
            values = {**brought, **values}
        if processors:
            values = {**values, **{name: process(values[name]) for name, process in processors.items()}}
        try:
            return DirectResult(columns, *self._statements.run(text, names, values, bool(columns)))
        except self._quick.dialect.loaded_dbapi.Error as error:
            raise self._quick.told(error, text, values, lost=self._is_lost(error)) from error

    def execute_and_then(
        self, statement: Any, values: Mapping[str, Any], after: Any, of_after: Mapping[str, Any]
    ) -> bool:
        """Run a statement, and after its commit another: in one round trip, if the driver can.

        Return whether the other was sent. It is run whatever becomes of the first, and what becomes of it is not told.

        Raises:
            sqlalchemy.exc.DBAPIError: of the first, as SQLAlchemy's own connection raises it.
        """
        if not self._statements.runs_in_turn:
            self.execute(statement, values)
            return False
        text, names, brought, *_ = self._quick.compiled(statement)
        then, of_then, brought_then, *_ = self._quick.compiled(after)
        both = (text, names, {**brought, **values}), (then, of_then, {**brought_then, **of_after})
        try:
            self._statements.run_in_turn(*both)
        except Outdated:
            self.execute(statement, values)
            return False
        except self._quick.dialect.loaded_dbapi.Error as error:
            raise self._quick.told(error, text, values, lost=self._is_lost(error)) from error
        return True

    def _is_lost(self, error: Any) -> bool:
        """Whether the server is gone. Then so are all connections of the pool."""
        lost: bool = self._quick.dialect.is_disconnect(error, self._entry.dbapi_connection, None)
        if lost:
            self._entry.invalidate(error)
            self._quick.pool.renew()
        return lost
