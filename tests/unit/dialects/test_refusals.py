"""Errors over values that can never be stored, told apart by what the real drivers raise; and what is said of them."""

from __future__ import annotations

import sqlite3

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from psycopg import errors as pg
from sqlalchemy import exc

from celery_sql_results.dialects import DefaultImpl, impl_for
from celery_sql_results.dialects.refusals import reason_of, wire_size
from servers import Database

SECRET = "the payload"
#: Nobody is there: whoever asks this server for its limits, gets no answer.
AWAY = sa.create_engine("mysql+pymysql://nobody@127.0.0.1:1/none")
LOST = pymysql.err.OperationalError(2013, "Lost connection")


def wrapped(orig: Exception, module: object, params: object = None, *, lost: bool = False) -> exc.DBAPIError:
    """The error as SQLAlchemy raises it."""
    return exc.DBAPIError.instance(  # type: ignore[return-value]
        "INSERT",
        params or {},
        orig,
        module.Error,
        connection_invalidated=lost,  # type: ignore[attr-defined,arg-type]
    )


REFUSED = [
    ("postgresql", psycopg, pg.StringDataRightTruncation("value too long for type character varying(50)")),
    ("postgresql", psycopg, pg.NumericValueOutOfRange("integer out of range")),
    ("postgresql", psycopg, pg.CheckViolation(f"new row violates\nDETAIL: Failing row contains ({SECRET}).")),
    ("postgresql", psycopg, pg.InvalidTextRepresentation(f'invalid input syntax for type integer: "{SECRET}"')),
    ("postgresql", psycopg, pg.ProgramLimitExceeded("too large")),
    ("postgresql", psycopg, psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")),
    ("postgresql", psycopg, psycopg.ProgrammingError("cannot adapt type")),
    ("mysql", pymysql, pymysql.err.DataError(1406, "Data too long for column 'name' at row 1")),
    ("mysql", pymysql, pymysql.err.DataError(1366, f"Incorrect string value: '{SECRET}' for column")),
    ("mysql", pymysql, pymysql.err.OperationalError(1153, "Got a packet bigger than 'max_allowed_packet' bytes")),
    ("mysql", pymysql, pymysql.err.OperationalError(4025, "CONSTRAINT `small` failed")),
    ("sqlite", sqlite3, sqlite3.DataError("string or blob too big")),
    ("sqlite", sqlite3, sqlite3.IntegrityError("CHECK constraint failed: small")),
    ("oracle", psycopg, psycopg.DataError("whatever")),
]


@pytest.mark.parametrize(("name", "module", "orig"), REFUSED, ids=str)
def test_refused(name: str, module: object, orig: Exception) -> None:
    """Never tried again; the reason begins with the class and holds no payload."""
    impl, error = impl_for(name), wrapped(orig, module)
    reason = impl.refusal(error, AWAY) or ""

    assert reason.startswith(type(orig).__name__)
    assert SECRET not in reason
    assert not impl.is_transient(error)


@pytest.mark.parametrize(
    ("name", "module", "orig"),
    [
        ("postgresql", psycopg, pg.UndefinedTable("no table")),
        ("postgresql", psycopg, pg.DeadlockDetected("deadlock")),
        ("postgresql", psycopg, psycopg.OperationalError("refused")),
        ("mysql", pymysql, pymysql.err.ProgrammingError(1146, "no table")),
        ("mysql", pymysql, pymysql.err.OperationalError(1213, "deadlock")),
        ("mysql", pymysql, pymysql.err.InterfaceError()),
        ("sqlite", sqlite3, sqlite3.OperationalError("database is locked")),
        ("sqlite", sqlite3, sqlite3.IntegrityError("UNIQUE constraint failed")),
        ("oracle", psycopg, psycopg.OperationalError("refused")),
    ],
    ids=str,
)
def test_not_refused(name: str, module: object, orig: Exception) -> None:
    """It is not the values that failed."""
    assert impl_for(name).refusal(wrapped(orig, module), AWAY) is None


def test_errors_that_sqlalchemy_does_not_wrap() -> None:
    """Python's own driver of SQLite says so of 2 GB and of large numbers."""
    impl = DefaultImpl()
    found = [impl.refusal(error, AWAY) for error in (OverflowError("too large"), ValueError("…"))]

    assert found == ["OverflowError: too large", None]


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_a_connection_lost_while_the_server_is_away(size: int) -> None:
    """Then nobody can tell whether the values were too large: it may pass."""
    impl = impl_for("mysql")
    error = wrapped(LOST, pymysql, {"result": b"x" * size}, lost=True)

    assert (impl.refusal(error, AWAY), impl.is_transient(error)) == (None, True)


class Large(bytes):
    """Claims to be larger than the memory of this machine."""

    def __len__(self) -> int:
        return 2**30


def test_more_than_postgresql_reads() -> None:
    """It hangs up on a message of 1 GB."""
    error = wrapped(psycopg.OperationalError("lost"), psycopg, {"result": Large()}, lost=True)

    assert impl_for("postgresql").refusal(error, AWAY) == (
        "a message of 1073741824 bytes is longer than PostgreSQL's longest, 1073741823"
    )


@pytest.mark.parametrize(
    ("parameters", "escaped", "expected"),
    [
        ({"a": b"12345", "b": None, "c": 7}, False, 5),
        (("ö", b"'"), False, 3),
        (("ö", b"'\"\\\x00\n\r\x1a"), True, 2 + 14),
        (None, True, 0),
    ],
)
def test_wire_size(parameters: object, escaped: bool, expected: int) -> None:
    """In bytes; what is escaped counts twice."""
    assert wire_size(parameters, escaped) == expected


@pytest.mark.parametrize(
    ("driver", "name"),
    [("MySQLdb", "mysqldb"), ("mysql.connector", "mysqlconnector"), ("mariadb", "mariadbconnector")],
)
def test_drivers_of_mysql(mariadb: Database, driver: str, name: str) -> None:
    """Each has its own way to tell the number and the words."""
    pytest.importorskip(driver)
    engine = sa.create_engine(mariadb.server.url(mariadb.name, driver=name), poolclass=sa.NullPool)
    mariadb.execute("CREATE TABLE small (name VARCHAR(3))")
    with engine.connect() as connection, pytest.raises(exc.DBAPIError) as caught:
        connection.execute(sa.text("INSERT INTO small VALUES (:name)"), {"name": SECRET})
    reason = impl_for("mysql").refusal(caught.value, engine) or ""

    assert reason.partition(": ")[2] == "1406 Data too long for column"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError(), "ValueError"),
        (
            pymysql.err.DataError(1406, "Data too long for column 'name' at row 1"),
            "DataError: 1406 Data too long for column",
        ),
        (psycopg.DataError("first line\nsecond"), "DataError: first line"),
    ],
    ids=str,
)
def test_reason(error: Exception, expected: str) -> None:
    """Class, code, words; nothing that is quoted."""
    assert reason_of(error) == expected
