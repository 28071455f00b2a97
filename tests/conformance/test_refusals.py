"""What a database refuses: the outcome is stored all the same, and says what is missing and why."""

from __future__ import annotations

import logging
import sqlite3
import sys

import pytest
from celery import states
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results import DatabaseBackend, ResultRefused
from chords.actors import open_chord
from servers import Database
from servers.pool import on
from support import SERIALIZERS, Backends, request

#: Bytes that the databases of these tests take in one column, and a value that is larger.
LIMIT = 2_000_000
LARGE = "a-secret-" * 300_000


def only_small_ones(engine: Engine) -> None:
    """Lower SQLite's limit of a value, which else is 1 GB, on each connection."""
    event.listen(engine, "connect", lambda connection, _: connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LIMIT))


@pytest.fixture
def strict(backends: Backends, database: Database) -> Backends:
    """Makes backends on tables that exist, in a database that refuses a payload of more than `LIMIT` bytes."""

    def make(**settings: object) -> DatabaseBackend:
        backend = backends(**settings)
        backend.database.rows  # noqa: B018  makes the tables
        if database.kind in ("postgresql", "portable", "firebird"):
            for table, columns in (("", ("result", "args")), ("_parts", ("result",))):
                small = " AND ".join(f"coalesce(octet_length({column}), 0) < {LIMIT}" for column in columns)
                quotient = f"1 / CASE WHEN {small} THEN 1 ELSE 0 END"
                # A division by zero is a refusal of a value; that of a CHECK would be an IntegrityError.
                database.execute(f"ALTER TABLE celery_taskmeta{table} ADD CHECK ({quotient} = 1)")
        return backend

    if database.kind == "sqlite":
        if sys.version_info < (3, 11):
            pytest.skip("Python cannot lower SQLite's limits before 3.11")
        settings = {"database_engine_callback": only_small_ones}
        return lambda **more: make(**settings, **more)
    if database.kind == "mariadb":
        database.execute(f"SET GLOBAL max_allowed_packet = {LIMIT // 1024 * 1024}")
    return make


@pytest.fixture(autouse=True)
def mercy(database: Database) -> object:
    """MariaDB takes what it took before, after the test."""
    before = database.execute("SELECT @@global.max_allowed_packet") if database.kind == "mariadb" else None
    yield
    if before:
        database.execute(f"SET GLOBAL max_allowed_packet = {before[0][0]}")


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error or as a warning, the retries among it."""
    ours = (record for record in caplog.records if record.name.startswith("celery_sql_results"))
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_result_that_is_too_large(strict: Backends, serializer: str, caplog: pytest.LogCaptureFixture) -> None:
    """A failure says so at once, without a retry; one line of the log says it too, and neither shows the value."""
    backend = strict(result_serializer=serializer, accept_content=[serializer])
    backend.store_result("t", LARGE, states.SUCCESS)
    meta, (said,) = backend.get_task_meta("t"), complaints(caplog)

    assert (meta["status"], type(meta["result"])) == (states.FAILURE, ResultRefused)
    assert str(meta["result"]).startswith("the task ended in SUCCESS, but the database refused its result of 270")
    assert said.startswith("storing SUCCESS of task t, 270")
    assert said.endswith("stored a marker instead of the result")
    assert "secret" not in said + str(meta["result"])


@pytest.mark.parametrize("state", [states.FAILURE, states.RETRY])
def test_an_exception_that_is_too_large(strict: Backends, state: str) -> None:
    """It keeps its state, and both ends of its traceback."""
    backend = strict()
    backend.store_result("t", ValueError(LARGE), state, traceback="begin " + LARGE + " end")
    meta = backend.get_task_meta("t")

    assert (meta["status"], type(meta["result"])) == (state, ResultRefused)
    assert (meta["traceback"][:6], meta["traceback"][-4:]) == ("begin ", " end")
    assert len(meta["traceback"]) < 10_000


def test_progress_that_is_too_large(strict: Backends) -> None:
    """A state of one's own stays, with a text in place of its value."""
    backend = strict()
    backend.store_result("t", LARGE, "PROGRESS")

    assert backend.get_state("t") == "PROGRESS"
    assert backend.get_result("t").startswith("the task ended in PROGRESS, but the database refused")


def test_arguments_that_are_too_large(strict: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """They only inform: the result is stored without them."""
    backend = strict(result_extended=True)
    backend.store_result("t", "a result", states.SUCCESS, request=request(args=[LARGE]))
    meta, (said,) = backend.get_task_meta("t"), complaints(caplog)

    assert (meta["status"], meta["result"], meta["args"]) == (states.SUCCESS, "a result", None)
    assert (meta["name"], meta["worker"]) == ("shop.pay", "celery@shop-1")
    assert said.endswith("stored without children, arguments and stamps")


def test_both_are_too_large(strict: Backends) -> None:
    """A marker, and what is short."""
    backend = strict(result_extended=True)
    backend.store_result("t", LARGE, states.SUCCESS, request=request(args=[LARGE]))
    meta = backend.get_task_meta("t")

    assert (type(meta["result"]), meta["args"], meta["name"]) == (ResultRefused, None, "shop.pay")


def test_what_informs_is_kept_beside_a_marker(strict: Backends) -> None:
    """If it was not the reason."""
    backend = strict(result_extended=True)
    backend.store_result("t", LARGE, states.SUCCESS, request=request())
    meta = backend.get_task_meta("t")

    assert (type(meta["result"]), meta["name"], meta["args"]) == (ResultRefused, "shop.pay", [1, "zwei"])


def test_success_stays(strict: Backends) -> None:
    """A marker is as little allowed to overwrite it as any failure."""
    backend = strict()
    backend.store_result("t", 1, states.SUCCESS)
    backend.store_result("t", ValueError(LARGE), states.FAILURE)

    assert (backend.get_state("t"), backend.get_result("t")) == (states.SUCCESS, 1)


def test_a_chord_learns_of_it(strict: Backends) -> None:
    """The part counts as failed, and is not tried for minutes."""
    backend = strict()
    rows = backend.database.rows.chords
    assert rows is not None
    open_chord(rows, "g", None)
    backend.mark_as_done("t", LARGE, request(group="g", chord={"task": "body"}, group_index=0))
    (part,) = rows.results("g")

    assert part["status"] == states.FAILURE
    assert isinstance(backend.get_result("t"), ResultRefused)


TRIGGERS = {
    "postgresql": [
        (
            "CREATE FUNCTION say_no() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN IF length(new.result) > 1000 THEN RAISE EXCEPTION 'too large'; END IF; RETURN new; END $$"
        ),
        "CREATE TRIGGER say_no BEFORE INSERT ON celery_taskmeta FOR EACH ROW EXECUTE FUNCTION say_no()",
    ],
    "mariadb": [
        (
            "CREATE TRIGGER say_no BEFORE INSERT ON celery_taskmeta FOR EACH ROW "
            "IF length(new.result) > 1000 THEN SIGNAL SQLSTATE '45000'; END IF"
        )
    ],
}


@on(*TRIGGERS)
def test_a_trigger_that_says_no(backend: DatabaseBackend, database: Database) -> None:
    """As a constraint does."""
    backend.database.rows  # noqa: B018  makes the tables
    for statement in TRIGGERS[database.kind]:
        database.execute(statement)
    backend.store_result("t", "x" * 2000, states.SUCCESS)

    assert isinstance(backend.get_result("t"), ResultRefused)


def test_a_marker_that_is_refused_too(backend: DatabaseBackend, database: Database) -> None:
    """An error for the caller: nothing is left to be tried."""
    backend.database.rows  # noqa: B018  makes the tables
    if database.kind == "sqlite":
        pytest.skip("SQLite adds no CHECK to a table that exists")
    database.execute("ALTER TABLE celery_taskmeta ADD CHECK (task_id <> 't')")
    with pytest.raises(SQLAlchemyError):
        backend.store_result("t", 1, states.SUCCESS)

    assert backend.get_state("t") == states.PENDING
