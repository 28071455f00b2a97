"""Fixtures of these tests: processes to race, and a server's word on what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from servers import Database

#: Returns what a server refused, and what failed on it, since the database was created.
Refused = Callable[[], list[str]]

#: MariaDB's number for a client that ended without a goodbye, as every killed or forked process does.
NO_GOODBYE = " ERROR 1158: "


@pytest.fixture
def refused(database: Database) -> Refused:
    """The errors that the server's log reports. MariaDB keeps those of statements in a log of its own, if told to."""
    if database.kind != "mariadb":
        return database.errors
    if "a log of errors" in database.server.lacks:
        return lambda: database.errors() + counted_by_mysql(database)
    log = statement_errors(database)
    start = log.stat().st_size
    return lambda: database.errors() + statements_that_failed(log.read_bytes()[start:].decode())


def counted_by_mysql(database: Database) -> list[str]:
    """The statements of which MySQL has counted errors in this database."""
    where = f"schema_name = '{database.name}' AND sum_errors > 0"
    table = "performance_schema.events_statements_summary_by_digest"
    return [text for (text,) in database.execute(f"SELECT digest_text FROM {table} WHERE {where}")]


def statement_errors(database: Database) -> Path:
    """The file where MariaDB from now on notes each statement that fails."""
    if not database.execute("SELECT 1 FROM information_schema.plugins WHERE plugin_name = 'SQL_ERROR_LOG'"):
        database.execute("INSTALL SONAME 'sql_errlog'")
    ((folder,),) = database.execute("SELECT @@datadir")
    return Path(folder) / "sql_errors.log"


def statements_that_failed(logged: str) -> list[str]:
    """The lines of MariaDB's log that are about statements; warnings are none."""
    return [line for line in logged.splitlines() if " ERROR " in line and NO_GOODBYE not in line]
