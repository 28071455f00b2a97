"""Results are stored past SQLAlchemy's execution on MariaDB and SQLite, wherever nobody can tell the difference."""

from __future__ import annotations

import logging
import sqlite3
from datetime import datetime
from typing import Any

import pymysql
import pytest
from celery import states
from celery.app.task import Context
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from celery_sql_results import DatabaseBackend
from conformance.test_quick_path import WRITE_AND_READ, listening, use
from conformance.test_statements import VERBS, verbs
from servers import Database
from servers.pool import needs, on
from support import Backends, Statements

pytestmark = [on("mariadb", "sqlite"), pytest.mark.drivers("pymysql", "pysqlite")]

#: Columns that differ each time.
TIMES = ("id", "date_done", "date_started")
#: What a worker knows of a task.
REQUEST = {
    "id": "t",
    "task": "größer",
    "hostname": "celery@shop",
    "delivery_info": {"routing_key": "mail"},
    "retries": 2,
    "celery_sql_results_sent": "2026-07-21T12:00:00.000007 t",
}


def is_never_asked(*_: Any, **__: Any) -> Any:
    """In the place of SQLAlchemy's execution."""
    raise AssertionError("SQLAlchemy was asked to run a statement")


@pytest.mark.parametrize("state", [states.STARTED, states.FAILURE])
def test_a_write_goes_past_sqlalchemy(backend: DatabaseBackend, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    use(backend, "before")
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "execute", is_never_asked)
        backend.store_result("t", ValueError("x") if state == states.FAILURE else 1, state)

    assert backend.get_status("t") == state


@pytest.mark.parametrize("name", ["before_cursor_execute", "after_cursor_execute"])
def test_who_begins_to_listen_is_told(
    statements: Statements, backend: DatabaseBackend, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of one statement for each write, which is all that the server gets."""
    monkeypatch.setattr(Engine, "_has_events", False)  # SQLAlchemy would remember for all tests that somebody listened
    told: list[str] = []
    use(backend, "before")
    with listening(backend.database.engine, name, lambda *args: told.append(args[2])), statements() as seen:
        use(backend)

    assert verbs(told) == verbs(seen) == WRITE_AND_READ


@pytest.mark.parametrize(("target", "name"), [("dialect", "do_execute"), ("pool", "checkout"), ("pool", "checkin")])
def test_who_listens_to_the_dialect_or_the_pool_is_told(backend: DatabaseBackend, target: str, name: str) -> None:
    told: list[str] = []
    use(backend, "before")
    with listening(backend.database.engine, name, lambda *_: told.append(name)):
        use(backend)

    assert told == [name] * 2


@pytest.mark.parametrize("options", [{"echo": True}, {}], ids=str)
def test_the_log_shows_the_statements(
    backends: Backends, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    backend = backends(database_engine_options=options)
    use(backend, "before")
    caplog.clear()
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        use(backend)
    found = verbs([text for text in caplog.messages if text[0] != "["])

    assert [verb for verb in found if verb in VERBS] == WRITE_AND_READ


def rows(database: Database, backend: DatabaseBackend) -> list[tuple[Any, ...]]:
    """All that is stored, as the database has it; of times, how long they are."""
    columns = [column.name for column in backend.models.task.c if column.name not in TIMES]
    shown = ", ".join(columns)
    types = "".join(f", typeof({name})" for name in (*columns, *TIMES)) if database.kind == "sqlite" else ""
    return database.execute(f"SELECT {shown}, length(date_done), length(date_started){types} FROM celery_taskmeta")


@pytest.mark.parametrize(
    ("value", "state"),
    [(None, states.SUCCESS), ({"x": "Ü'\\%(a)s:b?"}, states.SUCCESS), (ValueError("no"), states.FAILURE)],
    ids=["None", "odd", "failure"],
)
def test_what_is_stored_is_the_same(database: Database, backends: Backends, value: Any, state: str) -> None:
    """By the one way and by the other, to the type of each value."""
    backend, found = backends(result_extended=True), []
    request: Any = Context(REQUEST, args=[b"\xff"], kwargs={}, stamped_headers=["a"], stamps={"a": "%s"})
    for listens in (False, True):
        if listens:
            event.listen(backend.database.engine, "before_cursor_execute", lambda *_: None)
        backend.store_result("t", None, states.STARTED, request=request)
        backend.store_result("t", value, state, "line 1", request=request)
        found.append(rows(database, backend))
        database.execute("DELETE FROM celery_taskmeta")

    assert found[0] == found[1]


def test_times_are_the_same(backends: Backends) -> None:
    backend = backends()
    request: Any = Context(REQUEST)
    backend.store_result("t", 1, states.SUCCESS, request=request)

    assert backend.recorded("t")["date_queued"] == datetime(2026, 7, 21, 12, 0, 0, 7)
    assert isinstance(backend.get_task_meta("t")["date_done"], datetime)


class OwnSQLite(sqlite3.Connection):
    """Somebody's own connection, which notes what it runs."""

    ran: list[str] = []  # noqa: RUF012 - of all of them

    def cursor(self, *args: Any, **options: Any) -> Any:
        """Note it."""
        self.ran.append("cursor")
        return super().cursor(*args, **options)


class OwnCursor(pymysql.cursors.DictCursor):
    """A cursor whose rows are dicts, which SQLAlchemy cannot read, unless it is asked for none."""

    ran: list[str] = []  # noqa: RUF012 - of all of them

    def execute(self, query: Any, args: Any = None) -> Any:
        """Note it."""
        self.ran.append(query)
        return super().execute(query, args)

    def fetchone(self) -> Any:
        """A tuple, as SQLAlchemy needs it."""
        row = super().fetchone()
        return row and tuple(row.values())

    def fetchall(self) -> Any:
        """Tuples."""
        return [tuple(row.values()) for row in super().fetchall()]


def test_what_is_ones_own_is_used(database: Database, backends: Backends) -> None:
    """A connection or a cursor of which nothing is known."""
    own: Any = {"factory": OwnSQLite} if database.kind == "sqlite" else {"cursorclass": OwnCursor}
    ran = OwnSQLite.ran if database.kind == "sqlite" else OwnCursor.ran
    backend = backends(database_engine_options={"connect_args": own})
    use(backend, "before")
    ran.clear()

    assert use(backend) == {"x": "Ü"}
    assert len(ran) == len(WRITE_AND_READ)


def test_however_values_stand_in_a_statement(database: Database, backends: Backends) -> None:
    backend = backends(database_engine_options={"paramstyle": {"sqlite": "named", "mariadb": "format"}[database.kind]})

    assert use(backend) == {"x": "Ü"}


def test_the_dialect_of_mariadb(database: Database, backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy makes a class for it when it is asked; SQLite has one name."""
    needs(database, "sequences")  # as MariaDB is told from MySQL, which has a class of its own
    backend = backends(url=database.url.replace("mysql+", "mariadb+"))
    use(backend, "before")
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "execute", is_never_asked)
        backend.store_result("t", 1, states.SUCCESS)

    assert backend.get_result("t") == 1
