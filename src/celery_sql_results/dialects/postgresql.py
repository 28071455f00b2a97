"""PostgreSQL: ``ON CONFLICT``, advisory locks, ``SKIP LOCKED``, errors told apart by SQLSTATE."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.engine.url import URL

from celery_sql_results.boundaries import caught
from celery_sql_results.connections.pool import UNSENT, connected
from celery_sql_results.connections.psycopg3 import statements_of
from celery_sql_results.connections.quick import DirectConnection, Way, quick_path

from . import postgresql_catalog
from . import postgresql_notify as listen
from .autocommit import AutocommitImpl
from .contracts import Listener
from .inspection import Found
from .postgresql_names import qualify
from .postgresql_reads import PostgreSQLReads
from .postgresql_tending import PostgreSQLTending
from .postgresql_transactions import PostgreSQLTransactions
from .puts import Put, Row
from .refusals import wire_size
from .rejections import CERTIFICATE, CREDENTIALS, DATABASE, HOST, RIGHT, for_words
from .sqlstates import sqlstate
from .upserts import on_conflict_upsert

#: SQLSTATEs of a server that takes no writes: one that is a standby now, or whose role or database is set read-only.
DEMOTED = ("25006",)
#: SQLSTATEs that a standby gives as well: 0A000 for a table that is not logged, such as that of waiters, 55000 for a
#: lock that it does not take. Its words may be in any language, so it is asked as well.
AMBIGUOUS = ("0A000", "55000")
#: It may have been promoted since it gave the error: then it has written little yet, at most one segment of its log.
IS_STANDBY = f"""
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN true ELSE coalesce(
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), pg_catalog.pg_last_wal_replay_lsn())
    OPERATOR(pg_catalog.<) {2**24}::pg_catalog.numeric, false
) END
"""
#: SQLSTATEs (a class of two characters, or a code of five) after which the same statement may succeed.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
TRANSIENT = (
    "08",  # connection exception
    "40001",  # serialization failure
    "40003",  # statement completion unknown
    "40P01",  # deadlock detected
    "53",  # insufficient resources: too many connections, disk full, out of memory
    "55P03",  # lock not available
    "57014",  # query canceled: the server was too busy for its statement_timeout
    "57P",  # operator intervention: shutdown, crash, cannot connect now
    "58000",  # system error
    "58030",  # I/O error
    *DEMOTED,
)
#: How long a silent server is waited for: https://www.postgresql.org/docs/current/libpq-connect.html
#: A connection must be there after 30 s, what was sent acknowledged after 60 s; a quiet connection is probed.
PATIENCE = {
    "connect_timeout": 30,
    "tcp_user_timeout": 60_000,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
#: What drivers are told of that. pg8000 knows one time limit for whatever it waits for, so it must outlast a statement.
_ARGUMENTS: dict[str, dict[str, Any]] = {"psycopg": PATIENCE, "psycopg2": PATIENCE, "pg8000": {"timeout": 150}}
#: What a server calls the time zone that times are in here.
UTC = {"UTC", "Etc/UTC"}
_LIBPQ_DRIVERS = {"psycopg", "psycopg2"}
#: SQLSTATEs over values that will never be stored, however often they are sent.
REFUSED = (
    "22",  # data exception: too long, out of range, not in the character set
    "23514",  # a CHECK constraint says no
    "P0001",  # a trigger says no
    "54",  # program limit exceeded
)
#: What a server says that will not have us, or whoever connects of a server that he will not have, and what is needed.
#: While connecting, libpq hands over the words and no SQLSTATE; in other languages than English they are taken for a
#: server that is away.
REJECTIONS = {
    **dict.fromkeys(("authentication failed", "no password supplied", "is not permitted to log in"), CREDENTIALS),
    **dict.fromkeys(("certificate file", "private key file", "certificate verify failed"), CERTIFICATE),
    **dict.fromkeys(("does not match host name", "certificate required", "unknown ca"), CERTIFICATE),
    **dict.fromkeys(("does not support SSL", "invalid sslmode value"), CERTIFICATE),
    "no pg_hba.conf entry": HOST,
    "permission denied": RIGHT,
    # As the next, it does not exist: by libpq, and by pg8000. There may also be too many connections of a role.
    **dict.fromkeys(('FATAL:  role "', "'M': 'role \""), CREDENTIALS),
    "does not exist": DATABASE,
}
#: What PgBouncer in statement mode says, where drivers hand it over: it then closes the connection.
WITHOUT_TRANSACTIONS = "transaction blocks not allowed in statement pooling mode"
#: What stands before the words about each attempt: a driver may try several hosts, and again without TLS.
ATTEMPT = re.compile(r"(?:\n- host: [^\n]*|connection failed: )?connection to server |\n- host: ")
#: What a database says while it lets nobody connect, as one that is switched over; of a statement it means all sorts.
CLOSED = "55000"
#: SQLSTATEs of what a server does not know, or does not let a role do: a feature, a function, a command.
LACKING = ("0A000", "42501", "42601", "42883")
#: Bytes of the longest message that a server reads; on a longer one it hangs up. MaxAllocSize in its utils/memutils.h
LONGEST_MESSAGE = 0x3FFFFFFF
#: Numbers that are drawn of a sequence at once, to pass by those that are in use: about a second's work.
MOST_DRAWN = 2_000_000

#: The statements of storing and finding go past SQLAlchemy.
WAY = Way(PGDialect_psycopg, "pyformat", statements_of, takes_all=True)

#: The key of the lock on all set-ups in one database. It is "celery_s" in ASCII.
SETUP_KEY = 0x63656C6572795F73


class PostgreSQLImpl(AutocommitImpl):
    """PostgreSQL, with psycopg 3 or psycopg2."""

    reads = PostgreSQLReads()
    tending = PostgreSQLTending()
    transactions = PostgreSQLTransactions()
    supports_skip_locked = True
    supports_nowait = True
    supports_notify = True
    several_hosts = "?host=a:1&host=b:2"
    drivers: Mapping[str, str] = MappingProxyType(
        {"psycopg": '"celery-sql-results[postgresql]"', "psycopg2": "psycopg2-binary", "pg8000": "pg8000"}
    )
    sequence_grant = "USAGE ON SEQUENCE"
    indexes = postgresql_catalog.ConcurrentIndexes()
    max_parameters = 1_000_000  # an array is one parameter, however long

    def engine_options(self, url: URL) -> dict[str, Any]:
        """A server that does not answer any more is given up, as far as the driver can.

        Nor is hstore looked for: no column has that type, and psycopg asks with an operator that anybody may have made.
        """
        driver = url.get_driver_name()
        given = {name: value for name, value in _ARGUMENTS.get(driver, {}).items() if name not in url.query}
        return {"connect_args": given, **({"use_native_hstore": False} if driver in _LIBPQ_DRIVERS else {})}

    def server(self, dialect: sa.Dialect) -> str:
        return self._server(dialect, "PostgreSQL")

    def introduction(self, driver: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """libpq takes the name where nobody gives another: its own arguments, PGAPPNAME, a service."""
        if "application_name" in str(arguments.get("options")):
            return {}
        if driver in _LIBPQ_DRIVERS:
            return {"fallback_application_name": name, **arguments}
        return {"application_name": os.environ.get("PGAPPNAME") or name, **arguments} if driver == "pg8000" else {}

    def settle(self, dbapi_connection: DBAPIConnection, dialect: sa.Dialect) -> None:
        """Times are UTC also in columns with a time zone. PgBouncer keeps this apart for each of its clients.

        Bytes come as pg8000 reads them, and nothing else; the others read both forms.
        """
        info = getattr(dbapi_connection, "info", None)  # psycopg and psycopg2 are told the zone as they connect
        if info is None or info.parameter_status("TimeZone") not in UTC:
            with closing(dbapi_connection.cursor()) as cursor:
                cursor.execute("SET TIME ZONE 'UTC'")
                if info is None:
                    cursor.execute("SET bytea_output = 'hex'")

    def upsert(self, where: Put, columns: tuple[str, ...]) -> sa.Insert:
        return on_conflict_upsert(insert, where, columns)

    def now(self, offset: timedelta = timedelta()) -> sa.ColumnElement[datetime]:
        later = f"INTERVAL '{offset.days} days {offset.seconds} seconds {offset.microseconds} microseconds'"
        here = "pg_catalog.timezone('UTC', pg_catalog.statement_timestamp())"
        return sa.literal_column(f"({here} OPERATOR(pg_catalog.+) {later})", sa.DateTime())

    @contextmanager
    def connect(self, engine: Engine) -> Iterator[Connection]:
        """Where pg8000 cannot send a value, it is in the middle of a statement, and what ran next would be lost."""
        with connected(engine) as connection:
            try:
                yield connection
            except UNSENT:
                connection.invalidate()
                raise

    def connect_quickly(self, engine: Engine) -> AbstractContextManager[Any]:
        """The driver takes and gives the values of our columns as they are, if it is psycopg 3."""
        quick = quick_path(engine, WAY)
        return self.connect(engine) if quick is None else DirectConnection(quick)

    def put(self, connection: Any, where: Put, row: Row, wake: sa.Executable | None = None) -> bool:
        """Whoever is awaited writes twice, so that all others need not even read who waits."""
        columns, awaits = tuple(row), where.waiters is not None
        if awaits and connection.execute(where.statement(listen.unless_awaited, columns), row).rowcount > 0:
            return False
        upsert = where.statement(self.upsert, columns)
        if awaits and wake is not None and isinstance(connection, DirectConnection):
            # Woken for a write that has failed, they look in vain, and again within a second.
            return not connection.execute_and_then(upsert, row, wake, {"task_id_": row[where.key]})
        connection.execute(upsert, row)
        return awaits

    def put_both(self, connection: Connection, where: Put, row: Row, parts: Put, part: Row) -> bool:
        statement = where.statement(listen.with_part, tuple(row), parts, tuple(part))
        values = {**row, **{listen.PART + column: value for column, value in part.items()}}
        return connection.execute(statement, values).rowcount > 0 and where.waiters is not None

    def is_taken(self, error: BaseException) -> bool:
        """``ON CONFLICT`` is about the key, so what else is not unique is the id."""
        return isinstance(error, exc.DBAPIError) and error.orig is not None and sqlstate(error.orig) == "23505"

    def move_on(self, connection: Any, table: sa.Table) -> None:
        """By drawing numbers, which needs no right beside, and sets nothing back that others have drawn meanwhile."""
        sequence = table.c.id.default
        if isinstance(sequence, sa.Sequence):
            highest = sa.select(sa.func.coalesce(listen.OWN.max(table.c.id, type_=sa.BigInteger), 0)).scalar_subquery()
            gap = sa.func.least(sa.literal_column(str(MOST_DRAWN)), highest - sequence.next_value())
            drawn = listen.OWN.generate_series(sa.literal_column("1"), gap).table_valued("number")
            connection.execute(sa.select(listen.OWN.count(sequence.next_value())).select_from(drawn), {})

    def unsynced(self, update: sa.Update) -> sa.Executable:
        return update.returning(listen.NO_WAIT)

    def look_at(self, connection: Connection, tables: Sequence[sa.Table]) -> dict[sa.Table, Found]:
        return postgresql_catalog.look_at(connection, tables)

    def grantee(self, connection: Connection) -> str | None:
        role = connection.exec_driver_sql("SELECT current_user").scalar_one()
        return connection.dialect.identifier_preparer.quote(role)

    def one_of(self, column: sa.ColumnElement[str], name: str = "ids_") -> sa.ColumnElement[bool]:
        return listen.any_of(column, name)

    def can_listen(self, engine: Engine) -> bool:
        """Only connections of psycopg and psycopg2 can be waited for."""
        return engine.driver in _LIBPQ_DRIVERS

    def listener(self, engine: Engine) -> Listener:
        return listen.PostgreSQLListener(engine)

    qualify = staticmethod(qualify)
    leave_row = staticmethod(listen.leave_row)
    leave_rows = staticmethod(listen.leave_rows)
    withdraw = staticmethod(listen.withdraw)
    sweep = staticmethod(listen.sweep)
    wake = staticmethod(listen.wake)
    notify = staticmethod(listen.notify)

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        """Advisory locks that end with their transaction, so that they also work behind PgBouncer.

        READ COMMITTED lets the second look, after the wait, see what the first holder of the lock committed.
        """
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
        with self._explicit_transaction(connection, begin), self.schema_lock_within(connection, name):
            yield

    @contextmanager
    def schema_lock_within(self, connection: Connection, name: str) -> Iterator[None]:
        of_old = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
        with self.unless_refused(connection):  # without a lock, who loses the race looks again
            for key in (SETUP_KEY, of_old):
                connection.exec_driver_sql(f"SELECT pg_catalog.pg_advisory_xact_lock({key})")
        yield

    @contextmanager
    def unless_refused(self, connection: Connection) -> Iterator[None]:
        """Relatives of PostgreSQL do not know all that it does, and roles may not call each function."""
        connection.exec_driver_sql("SAVEPOINT unless_refused")
        try:
            yield
        except exc.DBAPIError as error:
            if connection.invalidated or sqlstate(error) not in LACKING:
                raise
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT unless_refused")

    def is_demoted(self, orig: BaseException, dbapi_connection: Any) -> bool:
        state = sqlstate(orig)
        return state in DEMOTED or (state in AMBIGUOUS and _said_by_standby(orig, dbapi_connection))

    def is_transient(self, error: BaseException) -> bool:
        return super().is_transient(error) and WITHOUT_TRANSACTIONS not in str(getattr(error, "orig", ""))

    def _is_transient(self, error: exc.DBAPIError, orig: BaseException) -> bool:
        state = sqlstate(orig)
        if state is None:
            return isinstance(error, (exc.OperationalError, exc.InterfaceError)) and not _is_rejected(str(orig))
        return state.startswith(TRANSIENT) or (state == CLOSED and error.statement is None)

    def needed(self, error: exc.DBAPIError, url: URL) -> str | None:
        """As a rule of an error that is no statement's: while connecting, libpq gives nothing but words."""
        told = str(error.orig)
        if WITHOUT_TRANSACTIONS in told:
            return "pool_mode session or transaction, which know transactions"
        return for_words(told, REJECTIONS) if not error.statement and _is_rejected(told) else None

    def _is_timed_out(self, orig: BaseException) -> bool:
        """An operator's cancel has the same SQLSTATE. In other languages than English it is taken for a time-out."""
        return sqlstate(orig) == "57014" and "user request" not in str(orig)

    def leave_rows_out(self, error: BaseException) -> None:
        """The server's first words are kept; what it says of details and of context may quote the row."""
        orig = getattr(error, "orig", None)
        before = str(orig)
        while orig is not None:  # pg8000 raises a second one from the first
            orig.args = _first_words(orig)
            orig = orig.__context__
        after = str(getattr(error, "orig", None))
        error.args = tuple(arg.replace(before, after) if isinstance(arg, str) else arg for arg in error.args)

    def _is_refusal(self, error: exc.DBAPIError, orig: BaseException) -> bool:
        state = sqlstate(orig)
        if state is None:  # the driver itself would not send it
            return isinstance(error, (exc.DataError, exc.ProgrammingError))
        return state.startswith(REFUSED)

    def _oversize(self, error: exc.DBAPIError, engine: Engine) -> str | None:
        size = wire_size(error.params)
        if size < LONGEST_MESSAGE:
            return None
        return f"a message of {size} bytes is longer than PostgreSQL's longest, {LONGEST_MESSAGE}"


def _said_by_standby(orig: BaseException, dbapi_connection: Any) -> bool:
    """Whether a standby has said so, which may have been promoted or ended since.

    Its words tell that where they are English; else the server is asked. One that cannot be asked, such as in a
    transaction that has failed, is taken for none, unless it has just hung up.
    """
    if "recovery" in str(orig):
        return True
    if dbapi_connection is None:
        return False
    with caught(), closing(dbapi_connection.cursor()) as cursor:
        cursor.execute(IS_STANDBY)
        return bool(cursor.fetchone()[0])
    return bool(getattr(dbapi_connection, "closed", False))


def _is_rejected(told: str) -> bool:
    """Whether each attempt to connect was; of two hosts, the other may be back soon."""
    return all(any(words in attempt for words in REJECTIONS) for attempt in filter(None, ATTEMPT.split(told)))


def _first_words(orig: BaseException) -> tuple[Any, ...]:
    """The arguments of a driver's error, less what a server adds to its message."""
    message = getattr(getattr(orig, "diag", None), "message_primary", None)  # psycopg and psycopg2
    if message is not None:
        return (message,)
    if orig.args and isinstance(orig.args[0], dict):  # pg8000: severity, code and message
        return ({name: value for name, value in orig.args[0].items() if name in "SVCM"}, *orig.args[1:])
    return orig.args
