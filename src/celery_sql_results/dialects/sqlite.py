"""SQLite: ``ON CONFLICT``, ``BEGIN IMMEDIATE``, a write-ahead log so that readers and the writer do not wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any
from weakref import finalize

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.engine.url import URL

from celery_sql_results.connections.cursors import of_sqlite3
from celery_sql_results.connections.quick import Way
from celery_sql_results.connections.shared import SharedConnection

from .autocommit import AutocommitImpl
from .contracts import ChangeCounter
from .puts import Put
from .rejections import of_file
from .sqlite_reads import SQLiteReads
from .sqlite_tending import SQLiteTending
from .sqlite_transactions import SQLiteTransactions
from .upserts import on_conflict_upsert

#: What SQLite says when the same statement may succeed later. Before Python 3.11 there is no code beside the words.
#: https://www.sqlite.org/rescode.html
TRANSIENT = ("locked", "busy", "disk is full", "disk I/O error", "readonly database", "unable to open", "out of memory")
#: Seconds that a statement waits for the writer before it; the driver's own 5 are short for a busy fleet.
BUSY_TIMEOUT = 30


def _text(value: bytes) -> str:
    """Whatever is in a column of text: SQLite checks no encoding, and the driver's own reading would fail."""
    return value.decode("utf-8", "backslashreplace")


class DataVersion:
    """``PRAGMA data_version`` changes when another connection has written: https://www.sqlite.org/pragma.html"""

    QUESTION = "PRAGMA data_version"

    def __init__(self, engine: Engine) -> None:
        with self._driver_errors():
            self._connection = engine.raw_connection()
            self._cursor = self._connection.cursor()
        self._seen = self._version()

    @contextmanager
    def _driver_errors(self) -> Iterator[None]:
        """Behind SQLAlchemy's back the driver raises its own errors, which nobody else can judge."""
        try:
            yield
        except sqlite3.Error as error:
            raise exc.DBAPIError.instance(self.QUESTION, None, error, sqlite3.Error) from error

    def _version(self) -> Any:
        with self._driver_errors():
            return self._cursor.execute(self.QUESTION).fetchone()

    def has_changed(self) -> bool:
        seen, self._seen = self._seen, self._version()
        return bool(seen != self._seen)

    def close(self) -> None:
        self._connection.invalidate()  # its pool may be gone by now, and would not close it


class SQLiteImpl(AutocommitImpl):
    """SQLite 3.24 or newer, with Python's own driver."""

    reads = SQLiteReads()
    tending = SQLiteTending()
    transactions = SQLiteTransactions()
    session_isolation_level = "SERIALIZABLE"
    drivers: Mapping[str, str] = MappingProxyType({"pysqlite": ""})
    puts_by = Way(SQLiteDialect_pysqlite, "qmark", of_sqlite3)
    begin = "BEGIN IMMEDIATE"  # to wait for the writer before it now, because a reader that turns writer cannot
    #: SQLite keeps its locks per process and forgets them in a fork: https://www.sqlite.org/howtocorrupt.html
    closes_before_fork = True
    #: https://www.sqlite.org/limits.html#max_variable_number
    max_parameters = 32_000 if sqlite3.sqlite_version_info >= (3, 32) else 900

    def engine_options(self, url: URL) -> dict[str, Any]:
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT}}
        if self.is_one_connection(url):
            options["connect_args"]["check_same_thread"] = False
        return options

    def is_one_connection(self, url: URL) -> bool:
        """A database in memory. One that connections share by name is none for us: they do not wait for each other."""
        name, query = url.database or ":memory:", url.query
        if not name.startswith("file:"):
            return name == ":memory:"
        is_in_memory = query.get("mode") == "memory" or query.get("vfs") == "memdb"
        return "uri" in query and (is_in_memory or name in {"file:", "file::memory:"})

    def share(self, engine: Engine, timeout: float | None) -> None:
        shared = SharedConnection(timeout)

        def connect(dialect: Dialect, _record: object, args: Any, options: Any) -> Any:
            return shared.lend(lambda: dialect.connect(*args, **options))

        event.listen(engine, "do_connect", connect)
        event.listen(engine, "engine_disposed", lambda _: shared.close())
        finalize(engine, shared.close).atexit = False

    def on_connect(self, dbapi_connection: DBAPIConnection) -> None:
        """The mode stays with the file. Where it cannot be set just now, the old one serves as well, more slowly."""
        dbapi_connection.text_factory = _text
        cursor = dbapi_connection.cursor()
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            pass
        finally:
            cursor.close()

    def size_of(self, column: sa.ColumnElement[bytes]) -> sa.ColumnElement[int]:
        """``octet_length`` is there since 3.43; of a BLOB, ``length`` is the same."""
        return sa.func.length(column, type_=sa.Integer)

    def server(self, dialect: Dialect) -> str:
        return self._server(dialect, "SQLite")

    def upsert(self, where: Put, columns: tuple[str, ...]) -> sa.Insert:
        return on_conflict_upsert(insert, where, columns)

    def is_taken(self, error: BaseException) -> bool:
        return isinstance(error, exc.IntegrityError) and "UNIQUE constraint" in str(error.orig)

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        with self._explicit_transaction(connection, self.begin):
            yield

    def counts_changes(self, engine: Engine) -> bool:
        """Not for a database in memory: its one connection does not count its own changes."""
        return not self.is_one_connection(engine.url)

    def change_counter(self, engine: Engine) -> ChangeCounter:
        return DataVersion(engine)

    def _is_transient(self, error: exc.DBAPIError, orig: BaseException) -> bool:
        return isinstance(orig, sqlite3.OperationalError) and any(words in str(orig) for words in TRANSIENT)

    def _is_timed_out(self, orig: BaseException) -> bool:
        return "interrupted" in str(orig)

    def needed(self, error: exc.DBAPIError, url: URL) -> str | None:
        if "file is not a database" in str(error.orig):
            return "a file that SQLite has made, or a path where there is none yet"
        is_closed = any(words in str(error.orig) for words in ("unable to open", "readonly database"))
        return of_file(url.database) if is_closed and url.database and not url.database.startswith("file:") else None

    def _is_refusal(self, error: exc.DBAPIError, orig: BaseException) -> bool:
        return isinstance(orig, sqlite3.DataError) or "CHECK constraint" in str(orig)
