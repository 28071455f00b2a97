"""A database that nobody wrote an impl for: what the portable way must bear, seen on PostgreSQL by another name."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa
from celery import states
from sqlalchemy import event

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import on
from support import Backends

pytestmark = on("portable")


@pytest.fixture
def overtaken(backends: Backends, database: Database) -> DatabaseBackend:
    """A backend whose transactions see nothing that others have committed since, and which somebody overtakes once.

    Many databases isolate like this by default.
    """
    taken: list[str] = []

    def overtake(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO celery_taskmeta ") and not taken:
            taken.append("t")
            database.execute("INSERT INTO celery_taskmeta (id, task_id, status) VALUES (9999, 't', 'STARTED')")

    def call_back(engine: sa.Engine) -> None:
        engine.update_execution_options(isolation_level="REPEATABLE READ")
        event.listen(engine, "before_cursor_execute", overtake)

    return backends(database_engine_callback=call_back)


def test_an_insert_that_is_overtaken(overtaken: DatabaseBackend, database: Database) -> None:
    """The row of the other is looked for in a new transaction, and replaced; once, and by no retry."""
    overtaken.store_result("t", 1, states.SUCCESS)

    assert database.execute("SELECT id, status FROM celery_taskmeta") == [(9999, states.SUCCESS)]


def test_a_part_is_kept_when_its_result_is_overtaken(overtaken: DatabaseBackend, database: Database) -> None:
    """What was undone with the transaction is done again."""
    rows = overtaken.database.rows
    part = {"group_id": "g", "task_id": "t", "position": 0, "status": states.SUCCESS, "result": b"1"}
    rows.tasks.put({"task_id": "t", "status": states.SUCCESS, "result": b"1"}, {**part, "content_type": "json"})

    assert database.execute("SELECT id, status FROM celery_taskmeta") == [(9999, states.SUCCESS)]
    assert database.execute("SELECT group_id, task_id FROM celery_taskmeta_parts") == [("g", "t")]


def test_tables_that_can_be_used_only_after_a_commit(backends: Backends, database: Database) -> None:
    """Rows are written in a transaction of their own, so that a table may be made ready first."""
    said: list[str] = []

    def call_back(engine: sa.Engine) -> None:
        event.listen(engine, "before_cursor_execute", lambda *arguments: said.append(arguments[2].split()[0]))
        event.listen(engine, "commit", lambda _connection: said.append("COMMIT"))

    backends(database_engine_callback=call_back)
    words = [word for word in said if word in ("CREATE", "INSERT", "COMMIT")]

    assert words[words.index("INSERT") - 2 :] == ["CREATE", "COMMIT", "INSERT", "COMMIT"]


class Bytes(sa.LargeBinary):
    """The bytes of whatever it is given, as some dialects make them."""

    def bind_processor(self, dialect: sa.Dialect) -> object:
        """Which fails for NULL."""
        return bytes


def test_null_is_kept_from_the_dialect(backends: Backends, database: Database) -> None:
    """In our statements and in those of a user's session."""

    def call_back(engine: sa.Engine) -> None:
        engine.dialect.colspecs = {**engine.dialect.colspecs, sa.LargeBinary: Bytes}

    backend = backends(database_engine_callback=call_back)
    backend.store_result("t", None, states.STARTED)
    backend.store_result("t", None, states.SUCCESS)
    with backend.ResultSession() as session:
        session.add(backend.task_cls("u"))
        session.commit()

    assert database.execute("SELECT task_id, children FROM celery_taskmeta ORDER BY 1") == [("t", None), ("u", None)]


def test_a_dialect_that_does_not_count(backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """It elects nobody: chords are left to Celery, and one warning says so."""

    def call_back(engine: sa.Engine) -> None:
        engine.dialect.supports_sane_rowcount = False

    backend = backends(database_engine_callback=call_back)
    backend.store_result("t", 1, states.SUCCESS)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    assert (backend.get_result("t"), backend.database.rows.chords) == (1, None)
    assert [warning.partition(":")[0] for warning in warnings] == [
        "the dialect does not tell how many rows an UPDATE has changed"
    ]
