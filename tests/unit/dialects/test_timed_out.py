"""A statement that took longer than the server allows is told from one that somebody has cancelled."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from celery_sql_results.dialects import impl_for
from servers import Database

#: Billions of rows, for MySQL: it does not call it an error if what is cut short is a sleep.
CROSSED = ", ".join(f"information_schema.collations {alias}" for alias in "abcd")
SLOW = {
    "postgresql": ("SET statement_timeout = 20", "SELECT pg_sleep(30)"),
    "mariadb": ("SET max_statement_time = 0.02", "SELECT SLEEP(30)"),
    "mysql": ("SET max_execution_time = 20", f"SELECT count(*) FROM {CROSSED}"),
}
CANCELLED = {
    "postgresql": ("SELECT 1", "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(30)"),
    "mariadb": ("SELECT 1", "KILL QUERY CONNECTION_ID()"),
    "mysql": ("SELECT 1", "KILL QUERY CONNECTION_ID()"),
}
#: What SQLAlchemy calls modules.
DRIVERS = {"MySQLdb": "mysqldb", "mysql.connector": "mysqlconnector", "mariadb": "mariadbconnector"}


@pytest.mark.parametrize(
    ("database", "driver"),
    [
        *(("postgresql", driver) for driver in ("psycopg", "psycopg2", "pg8000")),
        *(("mariadb", driver) for driver in ("pymysql", "MySQLdb", "mysql.connector", "mariadb")),
    ],
    indirect=["database"],
)
@pytest.mark.parametrize(("statements", "expected"), [(SLOW, True), (CANCELLED, False)], ids=["slow", "cancelled"])
def test_is_timed_out(database: Database, driver: str, statements: dict[str, tuple[str, str]], expected: bool) -> None:
    pytest.importorskip(driver)
    engine = sa.create_engine(database.server.url(database.name, driver=DRIVERS.get(driver, driver)))
    with engine.connect() as connection:
        first, last = statements["mysql" if "a time limit" in database.server.lacks else database.kind]
        connection.exec_driver_sql(first)
        with pytest.raises(sa.exc.DBAPIError) as told:
            connection.exec_driver_sql(last)
        connection.invalidate()
    engine.dispose()

    assert impl_for(database.kind).is_timed_out(told.value) is expected


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite", "unheard of"])
def test_other_errors(kind: str) -> None:
    """What no server has said, too."""
    impl = impl_for(kind)
    errors = [ValueError(), sa.exc.TimeoutError(), sa.exc.OperationalError("SELECT", {}, Exception())]

    assert [impl.is_timed_out(error) for error in errors] == [False] * 3
