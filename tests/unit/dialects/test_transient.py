"""Errors after which the same statement may succeed, told apart by what the real drivers raise."""

from __future__ import annotations

import sqlite3

import psycopg
import pymysql
import pytest
from psycopg import errors as pg
from sqlalchemy import exc

from celery_sql_results.dialects import DefaultImpl, impl_for
from celery_sql_results.dialects.mysql import TRANSIENT


def wrapped(orig: Exception, module: object = None, *, invalidated: bool = False) -> exc.DBAPIError:
    """The error as SQLAlchemy raises it."""
    base = module.Error if module else type(orig)  # type: ignore[attr-defined]
    return exc.DBAPIError.instance(  # type: ignore[return-value]
        "INSERT", {}, orig, base, connection_invalidated=invalidated
    )


POSTGRESQL = [
    (pg.ConnectionFailure("lost"), True),
    (pg.SerializationFailure("retry"), True),
    (pg.DeadlockDetected("deadlock"), True),
    (pg.TooManyConnections("too many"), True),
    (pg.LockNotAvailable("locked"), True),
    (pg.AdminShutdown("shutdown"), True),
    (pg.CrashShutdown("crash"), True),
    (pg.CannotConnectNow("starting up"), True),
    (pg.ReadOnlySqlTransaction("failover"), True),
    (psycopg.OperationalError("connection refused"), True),
    (psycopg.InterfaceError("connection already closed"), True),
    (pg.UniqueViolation("duplicate key"), False),
    (pg.UndefinedTable("no table"), False),
    (pg.InsufficientPrivilege("denied"), False),
    (pg.StringDataRightTruncation("too long"), False),
    (pg.DiskFull("disk full"), True),
    (pg.OutOfMemory("out of memory"), True),
    (pg.QueryCanceled("statement timeout"), True),
    (pg.IoError("could not write"), True),
    (psycopg.OperationalError("sorry, too many clients already"), True),
    (psycopg.OperationalError('password authentication failed for user "clerk"'), False),
    (psycopg.OperationalError('database "shop" does not exist'), False),
    (psycopg.OperationalError('permission denied for database "shop"'), False),
    (pg.InvalidPassword("wrong"), False),
    (pg.UntranslatableCharacter("not in this character set"), False),
    (pg.ProgramLimitExceeded("too large"), False),
    (psycopg.DataError("NUL"), False),
]


@pytest.mark.parametrize(("orig", "expected"), POSTGRESQL, ids=lambda value: type(value).__name__)
def test_postgresql(orig: Exception, expected: bool) -> None:
    """By SQLSTATE; where the server was not reached there is none."""
    assert impl_for("postgresql").is_transient(wrapped(orig, psycopg)) is expected


def test_postgresql_by_the_code_of_psycopg2() -> None:
    """psycopg2 calls the SQLSTATE pgcode; a lock that another holds comes as an OperationalError."""
    psycopg2 = pytest.importorskip("psycopg2")
    from psycopg2 import errors

    impl = impl_for("postgresql")
    found = [
        impl.is_transient(wrapped(error, psycopg2))
        for error in (errors.DeadlockDetected("deadlock"), psycopg2.OperationalError("refused"))
    ]

    assert found == [True, True]


REFUSED = 'connection to server at "127.0.0.1", port 1 failed: Connection refused'
REJECTED = 'connection to server at "127.0.0.1", port 2 failed: FATAL:  no pg_hba.conf entry for host "127.0.0.1"'
UNTRUSTED = 'connection to server at "127.0.0.1", port 2 failed: SSL error: certificate verify failed'
SEVERAL = "Multiple connection attempts failed. All failures were:\n"
FIRST, SECOND = "- host: 'a', port: '1', hostaddr: '127.0.0.1': ", "- host: 'b', port: '2', hostaddr: '127.0.0.1': "


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (REFUSED, True),
        (REJECTED, False),
        (UNTRUSTED, False),
        (f"connection failed: {UNTRUSTED}\n{REJECTED}, no encryption", False),
        (f"connection failed: {REFUSED}\n{REJECTED}", True),
        (f"{REJECTED}\n{REFUSED}\n\tIs the server running on that host?", True),
        (f'could not translate host name "a" to address: Name or service not known\n{REJECTED}', True),
        (f"connection failed: {REJECTED}\n{SEVERAL}{FIRST}connection timeout expired\n{SECOND}{REJECTED}", True),
        (f"connection failed: {REJECTED}\n{SEVERAL}{FIRST}connection failed: {REFUSED}\n{SECOND}{REJECTED}", True),
        (f"connection failed: {REJECTED}\n{SEVERAL}{FIRST}connection failed: {UNTRUSTED}\n{SECOND}{REJECTED}", False),
        (f"connection timeout expired\n{SEVERAL}{FIRST}{REJECTED}\n{SECOND}connection timeout expired", True),
        ('connection is bad: invalid sslmode value: "verify"', False),
    ],
)
def test_postgresql_while_connecting(told: str, expected: bool) -> None:
    """In words, which are about each host that was tried, with TLS and without: if one may be back soon, so may we."""
    assert impl_for("postgresql").is_transient(wrapped(psycopg.OperationalError(told), psycopg)) is expected


@pytest.mark.parametrize("code", sorted(TRANSIENT))
def test_mysql_transient(code: int) -> None:
    """By number, whatever the class."""
    assert impl_for("mysql").is_transient(wrapped(pymysql.err.OperationalError(code, "…"), pymysql))


@pytest.mark.parametrize(
    "orig",
    [
        pymysql.err.OperationalError(1045, "access denied"),
        pymysql.err.OperationalError(1054, "unknown column"),
        pymysql.err.OperationalError(1049, "unknown database"),
        pymysql.err.IntegrityError(1062, "duplicate entry"),
        pymysql.err.ProgrammingError(1146, "no table"),
        pymysql.err.DataError(1406, "too long"),
        pymysql.err.InterfaceError(),
    ],
    ids=repr,
)
def test_mysql_permanent(orig: Exception) -> None:
    """A statement that is wrong today is wrong tomorrow."""
    assert not impl_for("mysql").is_transient(wrapped(orig, pymysql))


@pytest.mark.parametrize(
    ("orig", "expected"),
    [
        (sqlite3.OperationalError("database is locked"), True),
        (sqlite3.OperationalError("database table is locked"), True),
        (sqlite3.OperationalError("database is busy"), True),
        (sqlite3.OperationalError("no such table: celery_taskmeta"), False),
        (sqlite3.OperationalError("database or disk is full"), True),
        (sqlite3.OperationalError("disk I/O error"), True),
        (sqlite3.OperationalError("attempt to write a readonly database"), True),
        (sqlite3.OperationalError("unable to open database file"), True),
        (sqlite3.DataError("string or blob too big"), False),
        (sqlite3.IntegrityError("UNIQUE constraint failed"), False),
        (sqlite3.DatabaseError("file is not a database"), False),
    ],
    ids=str,
)
def test_sqlite(orig: Exception, expected: bool) -> None:
    """By message: before Python 3.11 there is no code."""
    assert impl_for("sqlite").is_transient(wrapped(orig, sqlite3)) is expected


@pytest.mark.parametrize(
    ("orig", "expected"),
    [
        (psycopg.OperationalError("refused"), True),
        (psycopg.InterfaceError("closed"), True),
        (psycopg.IntegrityError("duplicate"), False),
        (psycopg.ProgrammingError("syntax"), False),
        (psycopg.DataError("too long"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_portable(orig: Exception, expected: bool) -> None:
    """By the classes of PEP 249, all that an unknown driver says."""
    assert DefaultImpl().is_transient(wrapped(orig, psycopg)) is expected


@pytest.mark.parametrize("name", ["postgresql", "mysql", "sqlite", "oracle"])
def test_every_database(name: str) -> None:
    """A full pool and a lost connection pass; what is no error of a database does not."""
    impl = impl_for(name)
    lost = wrapped(psycopg.ProgrammingError("…"), psycopg, invalidated=True)
    errors = (exc.TimeoutError("pool"), lost, ValueError("…"), exc.InvalidRequestError("…"))

    assert [impl.is_transient(error) for error in errors] == [True, True, False, False]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("postgresql", "PostgreSQLImpl"),
        ("mysql", "MySQLImpl"),
        ("mariadb", "MySQLImpl"),
        ("sqlite", "SQLiteImpl"),
        ("oracle", "DefaultImpl"),
    ],
)
def test_impl_for(name: str, expected: str) -> None:
    """A database that nobody wrote an impl for gets the portable one."""
    assert type(impl_for(name)).__name__ == expected
