"""MySQL and MariaDB: ``ON DUPLICATE KEY UPDATE``, ``GET_LOCK``, errors told apart by number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects.mysql import insert
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.engine.url import URL
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from celery_sql_results.boundaries import undone
from celery_sql_results.connections.cursors import of_pymysql
from celery_sql_results.connections.quick import Way

from .autocommit import AutocommitImpl
from .galera import Galera, is_too_large
from .inspection import Found, schema_of, sequence_of
from .mysql_catalog import ONLY_READS, OnlineIndexes, look_at
from .mysql_reads import MySQLReads
from .mysql_tending import MySQLTending, quoted_user
from .mysql_transactions import MySQLTransactions
from .puts import Put, Row
from .refusals import number_of, reason_of, wire_size
from .rejections import CERTIFICATE, CREDENTIALS, DATABASE, HOST, RIGHT, for_words

#: The lock on all set-ups of one server: a table may lie in another database than the connection's.
SETUP_LOCK = "celery_sql_results"
#: Seconds to wait for another process to finish the set-up.
LOCK_TIMEOUT = 120

#: A transaction was rolled back for another. On Galera, what another node does goes before, above all DDL.
DEADLOCK = 1213
#: Errors of a server that is not the primary any more, or does not serve. A new connection may find another.
DEMOTED = ONLY_READS | {
    1015,
    1036,  # a table is read-only: InnoDB was started so, says MySQL, or MariaDB
    1047,  # Galera: the node has lost its cluster, or is not ready yet
    1053,  # it is being shut down
    1874,  # InnoDB is read-only: a reader of Aurora
    1881,  # InnoDB was started to rescue what is there
    3032,  # offline mode: a member that has left group replication
}
#: Errors of a connection that was cut while MariaDB's library read or wrote, of which SQLAlchemy knows nothing.
#: https://github.com/mariadb-corporation/mariadb-connector-c/blob/3.4/include/errmsg.h
CUT = {5013, 5014}
#: What mysql-connector gives to an error that no server has sent, such as that there is no connection any more.
NO_NUMBER = -1
#: Errors after which the same statement may succeed.
#: https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference
#: https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html
#: Not 3100, by which group replication refuses also what will always be too large for it.
TRANSIENT = {
    1020,  # the row has changed since it was read (MariaDB's snapshot isolation)
    1021,  # disk full
    1026,  # error on write: disk full
    1030,  # an error of the storage engine, of the system's: as a rule disk full
    1180,  # the same during COMMIT; on Galera, the node has lost its cluster meanwhile
    1037,
    1038,
    1041,  # out of memory
    1040,  # too many connections
    1077,
    1079,  # server shutdown in progress
    1080,
    1152,
    1184,  # the server closes or has aborted the connection
    1114,  # the table is full: disk full, or the tablespace may not grow
    1129,  # host blocked after many failed connections, until somebody flushes hosts
    1158,
    1159,
    1160,
    1161,  # reading from or writing to the network failed
    1203,
    1226,  # too many connections of this user, or its quota of this hour is used up
    1205,  # lock wait timeout; on Galera, what was committed elsewhere did not come in time
    1206,  # the table of locks is full
    DEADLOCK,
    *DEMOTED,
    *CUT,
    1317,  # the query was killed
    1637,  # too many transactions at once
    1927,
    3169,
    4031,  # the connection was killed, or was idle for too long
    1969,
    3024,  # the query took longer than the server allows
    3101,  # group replication: another member was quicker
    3572,  # a lock is not to be had at once
    2001,
    2002,
    2003,
    2004,
    2005,
    2012,  # cannot connect
    2006,
    2013,
    2055,  # connection lost
    9001,  # ProxySQL: no server of a hostgroup could be reached in time
    9501,  # RDS Proxy: the same
}
#: Errors of a statement that took longer than ``max_statement_time`` (MariaDB) or ``max_execution_time`` allows.
TIMED_OUT = {1969, 3024}
#: The error by which our own statement tells that another row has the new id; see :func:`_same_row`.
OUT_OF_RANGE = 1690
#: Errors over values that will never be stored, however often they are sent.
REFUSED = {
    1153,  # larger than max_allowed_packet
    1197,  # larger than max_binlog_cache_size
    1264,
    1690,  # a number is out of range
    1265,
    1292,
    1300,
    1366,
    1367,
    1406,  # not what the column holds: wrong character set, too long
    1301,  # the result of a function is larger than max_allowed_packet
    1644,  # a trigger says no
    3140,  # not JSON
    3819,
    4025,  # a CHECK constraint says no
}
#: Bytes of values from which on a lost connection makes us ask for the largest packet. No server allows less: the
#: default is 16 MB on MariaDB and 64 MB on MySQL, and was 1 MB once.
SUSPICIOUS = 1_000_000
#: Bytes of what stands around the values of a statement.
QUOTES = 500

#: Numbers of a server that will not have us, and what is needed.
REJECTIONS = {
    1045: CREDENTIALS,
    1698: CREDENTIALS,
    1049: DATABASE,
    1044: RIGHT,
    1130: HOST,
}
#: What a row is before it is final, and what the server counts for a row that an upsert has changed:
#: https://dev.mysql.com/doc/refman/8.4/en/insert-on-duplicate.html
UNDER_WAY, CHANGED = "STARTED", 2
#: What drivers say of a server that they will not have, whatever the number.
TLS = dict.fromkeys(("certificate verify failed", "SSL connection error", "TLS/SSL error"), CERTIFICATE)

#: How long a silent server is waited for, in seconds. Reading must outlast a wait for the lock of the set-up.
CONNECTING, READING = 30, LOCK_TIMEOUT + 30
_TIME_OUTS = {"connect_timeout": CONNECTING, "read_timeout": READING, "write_timeout": READING}
#: What drivers get: the character set, and how long they wait, each by its own names.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "pymysql": {"charset": "utf8mb4", **_TIME_OUTS},
    "mysqldb": {"charset": "utf8mb4", **_TIME_OUTS},
    "mariadbconnector": _TIME_OUTS,  # which knows no other character set
    # Its own collation, of MySQL 8, is one that MariaDB 10 does not know.
    "mysqlconnector": {"charset": "utf8mb4", "collation": "utf8mb4_general_ci", **_TIME_OUTS},
}


def _insert(where: Put, columns: tuple[str, ...]) -> Any:
    return insert(where.table).values({column: sa.bindparam(column) for column in columns}).inline()


class stored(FunctionElement[Any]):
    """A column of the row that is there. MariaDB knows it without its table, and reads all of this with each write."""

    name = "stored"
    inherit_cache = True


@compiles(stored)
def _stored(element: stored, compiler: Any, **options: Any) -> str:
    """MySQL has an alias for the row that is new, whose columns have the same names."""
    [column] = element.clauses
    is_alone = bool(getattr(compiler.dialect, "is_mariadb", False))
    return str(compiler.process(column, **{**options, "include_table": not is_alone}))


def _same_row(where: Put, inserted: Any) -> list[tuple[str, Any]]:
    """An assignment that fails where the row that is there has another key: then it is the id that is taken.

    ``ON DUPLICATE KEY UPDATE`` would change whatever row is in the way. The sum is too large for every number, in every
    mode of the server; its first part keeps the server from finding that out beforehand.
    """
    table, key = where.table, where.key
    own = [column for column in table.primary_key.columns if key not in table.primary_key.columns]
    never = sa.func.length(inserted[key]) + sa.literal_column("1") + sa.literal_column("18446744073709551615")
    return [
        (column.key, sa.func.if_(stored(table.c[key]) == inserted[key], stored(column), never)) for column in own[:1]
    ]


def _is_closed(dbapi_connection: Any) -> bool:
    """Whether mysql-connector has no connection any more. SQLAlchemy knows its words of an older release only."""
    is_connected = getattr(dbapi_connection, "is_connected", None)
    return is_connected is not None and not is_connected()


class MySQLImpl(AutocommitImpl):
    """MySQL 8 and MariaDB 10.5 or newer, with each of the drivers of :data:`ARGUMENTS`."""

    reads = MySQLReads()
    tending = MySQLTending()
    transactions = MySQLTransactions()
    max_parameters = 10_000
    indexes = OnlineIndexes()
    puts_by = Way(MySQLDialect_pymysql, "pyformat", of_pymysql)
    drivers: Mapping[str, str] = MappingProxyType(
        {
            "pymysql": '"celery-sql-results[mysql]"',
            "mysqldb": "mysqlclient",
            "mysqlconnector": "mysql-connector-python",
            "mariadbconnector": "mariadb",
        }
    )
    pads = True
    #: MariaDB reports no error, and no row, where its time limit strikes while it plans a DELETE.
    silent_ends = 1
    supports_nowait = True
    sequence_grant = "SELECT, INSERT ON"

    def __init__(self) -> None:
        self._galera = Galera()

    def engine_options(self, url: URL) -> dict[str, Any]:
        arguments = ARGUMENTS.get(url.get_driver_name(), {})
        return {"connect_args": {name: value for name, value in arguments.items() if name not in url.query}}

    def server(self, dialect: sa.Dialect) -> str:
        return self._server(dialect, "MariaDB" if getattr(dialect, "is_mariadb", False) else "MySQL")

    def introduction(self, driver: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Among the attributes of the connection. Drivers that use the library of C have no argument for them."""
        if driver == "pymysql":
            return {"program_name": name, **arguments}
        if driver == "mysqlconnector":
            return {"conn_attrs": {"program_name": name, **(arguments.get("conn_attrs") or {})}}
        return {}

    def settle(self, dbapi_connection: DBAPIConnection, dialect: sa.Dialect) -> None:
        """Times are UTC also in columns of TIMESTAMP; no commit begins a transaction or ends the connection."""
        with closing(dbapi_connection.cursor()) as cursor:
            more = self._galera.settings(cursor, dialect)
            cursor.execute(f"SET SESSION time_zone = '+00:00', SESSION completion_type = 0{more}")

    def upsert(self, where: Put, columns: tuple[str, ...]) -> sa.Insert:
        """``ON DUPLICATE KEY UPDATE``, with the guard in each column."""
        statement, table = _insert(where, columns), where.table
        new: dict[str, Any] = {column: statement.inserted[column] for column in columns if column not in where.keys}
        if where.protected:
            # Assignments run from left to right, and the guard reads the status: so the status changes last. It is in
            # each, and the server reads all of them with each write: so it is short. A status that is NULL stays none.
            status = stored(table.c.status)
            stays = sa.or_(*(status == sa.literal_column(f"'{state}'") for state in where.protected))
            ordered = sorted(new, key=lambda column: column == "status")
            new = {column: sa.func.if_(stays, stored(table.c[column]), new[column]) for column in ordered}
        upsert: sa.Insert = statement.on_duplicate_key_update([*_same_row(where, statement.inserted), *new.items()])
        return upsert

    def put_once(self, connection: Any, where: Put, row: Row) -> bool:
        """By two statements: of a row that is there, 2 means that it was changed, and nothing else does.

        One that was inserted counts as one that was left alone, where a driver asks for the rows that were found.
        """
        upsert = where.statement(self.upsert, tuple(row))
        connection.execute(upsert, {**row, "status": UNDER_WAY})
        return bool(connection.execute(upsert, row).rowcount == CHANGED)

    def now(self, offset: timedelta = timedelta()) -> sa.ColumnElement[datetime]:
        microseconds = offset // timedelta(microseconds=1)
        return sa.literal_column(f"(UTC_TIMESTAMP(6) + INTERVAL {microseconds} MICROSECOND)", sa.DateTime())

    def is_taken(self, error: BaseException) -> bool:
        return isinstance(error, exc.DBAPIError) and error.orig is not None and number_of(error.orig) == OUT_OF_RANGE

    def move_on(self, connection: Connection, table: sa.Table) -> None:
        """MariaDB sets no sequence back. The number must be written out."""
        sequence = sequence_of(connection, table)
        highest = connection.execute(sa.select(sa.func.max(table.c.id))).scalar_one() if sequence is not None else None
        if sequence is not None and highest is not None:
            name = connection.dialect.identifier_preparer.format_sequence(
                sa.Sequence(sequence.name, schema=schema_of(connection, sequence))
            )
            connection.exec_driver_sql(f"SELECT SETVAL({name}, {int(highest)})")

    def look_at(self, connection: Connection, tables: Sequence[sa.Table]) -> dict[sa.Table, Found]:
        return look_at(connection, tables)

    def grantee(self, connection: Connection) -> str | None:
        return quoted_user(connection.exec_driver_sql("SELECT CURRENT_USER()").scalar_one())

    def has_other_primaries(self, connection: Connection) -> bool:
        """Only MariaDB knows ``IF NOT EXISTS`` of all that is created."""
        return self._galera.is_node(connection.dialect) and bool(getattr(connection.dialect, "is_mariadb", False))

    def is_overtaken(self, error: exc.DBAPIError) -> bool:
        return error.orig is not None and number_of(error.orig) == DEADLOCK

    def sequence_options(self, connection: Connection) -> dict[str, Any]:
        """Nodes of Galera refuse a sequence, unless each draws numbers of its own from it."""
        return {"increment": 0} if self._galera.is_node(connection.dialect) else {}

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        """Named locks; DDL commits itself here, so they are held by the connection, not by a transaction.

        Each node of Galera has its own: see :meth:`has_other_primaries`.
        """
        database = connection.exec_driver_sql("SELECT DATABASE()").scalar_one()
        of_old = hashlib.blake2b(f"{database}.{name}".encode(), digest_size=24).hexdigest()
        for lock in (SETUP_LOCK, of_old):
            if connection.exec_driver_sql(f"SELECT GET_LOCK('{lock}', {LOCK_TIMEOUT})").scalar_one() != 1:
                connection.invalidate()  # with the lock that it may hold
                raise exc.TimeoutError(f"waited {LOCK_TIMEOUT} s for another process to set up {name}")
        with undone(connection.invalidate):  # a server that is away can release nothing: the lock ends like this
            yield
        for lock in (of_old, SETUP_LOCK):
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK('{lock}')")

    schema_lock_within = schema_lock

    def deletion(self, key: sa.Column[int], where: sa.ColumnElement[bool], limit: int) -> sa.Delete:
        """With a subquery, MariaDB reads the whole table for each batch."""
        return sa.delete(key.table).where(where).with_dialect_options(mysql_limit=limit, mariadb_limit=limit)

    def is_demoted(self, orig: BaseException, dbapi_connection: Any) -> bool:
        number = number_of(orig)
        is_gone = number in DEMOTED | CUT or (number == NO_NUMBER and _is_closed(dbapi_connection))
        return is_gone or is_too_large(orig)

    def _is_transient(self, error: exc.DBAPIError, orig: BaseException) -> bool:
        return number_of(orig) in TRANSIENT

    def needed(self, error: exc.DBAPIError, url: URL) -> str | None:
        if error.statement or error.orig is None:
            return None
        return REJECTIONS.get(number_of(error.orig) or 0) or for_words(str(error.orig), TLS)

    def _is_timed_out(self, orig: BaseException) -> bool:
        return number_of(orig) in TIMED_OUT

    def _is_refusal(self, error: exc.DBAPIError, orig: BaseException) -> bool:
        return number_of(orig) in REFUSED

    def _oversize(self, error: exc.DBAPIError, engine: Engine) -> str | None:
        """A statement that is longer than ``max_allowed_packet`` makes the server hang up without a word."""
        if error.orig is not None and is_too_large(error.orig):
            return reason_of(error.orig)
        size = wire_size(error.params, escaped=True) + len(error.statement or "") + QUOTES
        if size < SUSPICIOUS:
            return None
        try:
            with engine.connect() as connection:
                limit = int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one())
        except exc.SQLAlchemyError:  # the server is away indeed
            return None
        return f"a statement of {size} bytes is longer than max_allowed_packet, {limit}" if size >= limit else None
