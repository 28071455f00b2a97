"""On PostgreSQL with psycopg 3, an awaited result and the notification of who waits for it share a round trip."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from celery import states, uuid
from celery.exceptions import BackendStoreError, SoftTimeLimitExceeded

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import on
from support import app_on, close

#: More runs than psycopg needs until it prepares a statement.
OFTEN = 8
CHANNEL = "celery_of_this_test"
PATIENCE = 30.0

pytestmark = [on("postgresql"), pytest.mark.drivers("psycopg")]


@pytest.fixture
def backend(database: Database) -> Iterator[DatabaseBackend]:
    """A backend with one connection, which tries nothing twice."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}
    made: DatabaseBackend = app_on(database.url, database_engine_options=options, result_backend_max_retries=0).backend
    made.store_result("first", 1, states.SUCCESS)
    yield made
    close(made)


@pytest.fixture
def listener(database: Database) -> Iterator[psycopg.Connection]:
    """Somebody who listens."""
    with psycopg.connect(database.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield connection


def awaited(database: Database) -> str:
    """The id of a task that somebody waits for."""
    task_id = uuid()
    database.execute(
        "INSERT INTO celery_taskmeta_waiters (awaited_id, channel, date_added) "
        f"VALUES ('{task_id}', '{CHANNEL}', now() AT TIME ZONE 'utc')"
    )
    return task_id


def told(listener: psycopg.Connection, count: int) -> list[str]:
    """The first notifications that arrive."""
    return [message.payload for message in listener.notifies(timeout=PATIENCE, stop_after=count)]


def waiters(database: Database) -> int:
    ((count,),) = database.execute("SELECT count(*) FROM celery_taskmeta_waiters")
    return int(count)


def nothing(database: Database) -> None:
    """All is as it was."""


def alter(database: Database) -> None:
    """What is prepared does not fit any more."""
    database.execute("ALTER TABLE celery_taskmeta ALTER status TYPE varchar(60)")
    database.execute("ALTER TABLE celery_taskmeta_waiters ALTER channel TYPE varchar(80)")


def make_slow(database: Database) -> None:
    """Each row that is stored takes a moment."""
    database.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.6); RETURN new; END $$"
    )
    database.execute("CREATE TRIGGER slow BEFORE INSERT ON celery_taskmeta FOR EACH ROW EXECUTE FUNCTION slow()")


def refuse_at_commit(database: Database) -> None:
    """The statement works, but not its commit."""
    database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE serialization_failure; END $$"
    )
    database.execute(
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON celery_taskmeta DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


@pytest.mark.parametrize("then", [nothing, alter])
def test_stored_and_told(
    database: Database, backend: DatabaseBackend, listener: psycopg.Connection, then: Callable[[Database], None]
) -> None:
    """Before the statements are prepared, when they are, and when they have to be prepared anew."""
    stored = []
    for number in range(2 * OFTEN):
        if number == OFTEN:
            then(database)
        stored.append(awaited(database))
        backend.store_result(stored[-1], number, states.SUCCESS)

    assert told(listener, len(stored)) == stored
    assert [backend.get_result(task_id) for task_id in stored] == list(range(2 * OFTEN))
    assert waiters(database) == 0


def test_a_state_is_told_and_still_awaited(
    database: Database, backend: DatabaseBackend, listener: psycopg.Connection
) -> None:
    task_id = awaited(database)
    backend.store_result(task_id, None, states.STARTED)
    before = waiters(database)
    backend.store_result(task_id, 1, states.SUCCESS)

    assert told(listener, 2) == [task_id] * 2
    assert (before, waiters(database)) == (1, 0)


def test_what_is_refused_leaves_a_marker(
    database: Database, backend: DatabaseBackend, listener: psycopg.Connection
) -> None:
    database.execute("ALTER TABLE celery_taskmeta ADD CHECK (length(result) < 1000)")
    task_id = awaited(database)
    backend.store_result(task_id, "x" * 2000, states.SUCCESS)

    assert told(listener, 1) == [task_id]
    assert (backend.get_state(task_id), backend.get_result("first")) == (states.FAILURE, 1)


def test_a_commit_that_fails(database: Database, backend: DatabaseBackend) -> None:
    """It is raised, and the connection serves the next."""
    refuse_at_commit(database)
    with pytest.raises(BackendStoreError):
        backend.store_result(awaited(database), 1, states.SUCCESS)
    database.execute("DROP TRIGGER refuse ON celery_taskmeta")
    backend.store_result("next", 2, states.SUCCESS)

    assert backend.get_result("next") == 2


def test_a_connection_that_was_lost(database: Database, backend: DatabaseBackend, listener: psycopg.Connection) -> None:
    """Another one is used at once."""
    make_slow(database)
    task_id = awaited(database)
    database.execute(
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN IF pg_terminate_backend(pg_backend_pid()) THEN NULL; END IF; RETURN new; END $$"
    )
    with pytest.raises(BackendStoreError):
        backend.store_result(task_id, 1, states.SUCCESS)
    database.execute("DROP TRIGGER slow ON celery_taskmeta")
    backend.store_result(task_id, 1, states.SUCCESS)

    assert backend.get_result(task_id) == 1
    assert told(listener, 1) == [task_id]


@contextmanager
def time_limit() -> Iterator[None]:
    """The block is interrupted as the task of a prefork child is: by a signal."""

    def strike(*_: object) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_time_limit_leaves_no_answer_to_the_next(database: Database, backend: DatabaseBackend) -> None:
    """The task is over, so its outcome is stored all the same."""
    make_slow(database)
    task_id = awaited(database)
    with time_limit():
        backend.store_result(task_id, "in the end", states.SUCCESS)
    backend.store_result("second", 2, states.SUCCESS)

    assert [backend.get_result(each) for each in ("first", task_id, "second")] == [1, "in the end", 2]
