"""PostgreSQL's protocol without all of PostgreSQL: what a database of its family refuses, the backend does without."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import on
from servers.proxy import Proxy
from support import app_on, close

pytestmark = on("postgresql")
#: Keeps a role from creating a table that is not logged, as servers do that know none.
NO_UNLOGGED = """
CREATE FUNCTION logged_only() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() JOIN pg_class ON oid = objid WHERE relpersistence = 'u') THEN
        RAISE EXCEPTION 'UNLOGGED database object not supported yet' USING ERRCODE = '0A000';
    END IF;
END$$
"""
#: The functions that lock until a transaction ends.
LOCKS = "pg_advisory_xact_lock(bigint)", "pg_advisory_xact_lock(int, int)"


@pytest.fixture
def url(database: Database) -> str:
    """The URL of a role that may create tables, and is not the administrator."""
    database.server.create_role("owner", "secret", database.name, ddl=True)
    return database.server.url(database.name, user="owner", password="secret")


def works(backend: DatabaseBackend) -> bool:
    """Whether results are stored, awaited and found, and chords counted."""
    backend.store_result("t", 1, states.SUCCESS)
    found = backend.app.AsyncResult("t").get(timeout=20)
    return found == 1 and backend.database.rows.chords is not None


def test_no_tables_that_are_not_logged(database: Database, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Results are polled, which one warning says; all else is there."""
    database.execute(NO_UNLOGGED)
    database.execute("CREATE EVENT TRIGGER logged_only ON ddl_command_end EXECUTE FUNCTION logged_only()")
    backend = app_on(url).backend
    found, waiters = works(backend), backend.database.rows.waiters
    close(backend)

    assert (found, waiters) == (True, None)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [warning.split(".")[0] for warning in warnings] == ["celery_taskmeta_waiters is missing"]


def test_no_advisory_locks(database: Database, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The set-up does without, and completely."""
    for function in LOCKS:
        database.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    backend = app_on(url).backend
    found, waiters = works(backend), backend.database.rows.waiters
    close(backend)

    assert (found, waiters is not None) == (True, True)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_many_at_once_without_locks(database: Database, url: str) -> None:
    """Whoever loses the race finds the tables complete."""
    for function in LOCKS:
        database.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    made = [app_on(f"{url}?application_name={number}", database_create_tables_at_setup=False) for number in range(8)]
    with ThreadPoolExecutor(len(made)) as threads:
        found = list(threads.map(lambda app: works(app.backend), made))
    close(*(app.backend for app in made))

    assert found == [True] * len(made)
    assert database.execute("SELECT count(*) FROM celery_taskmeta_version") == [(1,)]


class WithoutListen(Proxy):
    """A way to a server that does not know the command: it is misspelt on the way."""

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Any) -> None:
        while piece := await reader.read(2**16):
            writer.write(piece.replace(b"LISTEN", b"LISTEM"))
            await writer.drain()


def test_no_listen(database: Database, url: str) -> None:
    """Results are polled."""
    if "pg8000" in url:
        pytest.skip("Results are polled with it wherever.")
    with WithoutListen(database.server.port) as proxy:
        plain = "?sslmode=disable" if "psycopg" in url else ""  # what the proxy is to change, it must be able to read
        backend = app_on(url.replace(f":{database.server.port}", f":{proxy.port}") + plain).backend
        later = threading.Timer(1.0, backend.store_result, ("t", 1, states.SUCCESS))
        later.start()
        found = backend.app.AsyncResult("t").get(timeout=20)
        later.join()
        close(backend)

    assert found == 1
    assert any('syntax error at or near "LISTEM"' in error for error in database.errors())
