"""A soft time limit that strikes while a result is stored: it is stored all the same, and harms no other."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from celery import states, uuid
from celery.exceptions import BackendStoreError, SoftTimeLimitExceeded
from sqlalchemy import Engine, event

from celery_sql_results import DatabaseBackend
from celery_sql_results.connections import pool
from concurrency.actors import quick
from faults.trouble import engine_on, locked, proxied
from servers import Database
from servers.pool import on
from support import app_on, close, request

#: Seconds until the limit strikes, and until SQLite, which no signal interrupts, stops waiting for the lock.
LIMIT, BUSY = 0.3, 0.5
#: Seconds in which what is waited for must have happened; generous, since a loaded machine is slow.
PATIENCE = 60.0
#: One connection, for which nobody waits long: one that is not given back is missed.
POOL = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}


@pytest.fixture
def backend(database: Database) -> Iterator[DatabaseBackend]:
    """A backend with one connection, which tries nothing twice."""
    options = {**POOL, "connect_args": {"timeout": BUSY}} if database.kind == "sqlite" else POOL
    made: DatabaseBackend = app_on(database.url, database_engine_options=options, result_backend_max_retries=0).backend
    for task_id in ("first", *(uuid() for _ in range(7))):  # often enough for psycopg to prepare the statement
        made.store_result(task_id, 1, states.SUCCESS)
    yield made
    close(made)


_struck = threading.Event()


def strike(*_: object) -> None:
    """Do what a child of a prefork pool does when the soft limit is over."""
    _struck.set()
    raise SoftTimeLimitExceeded


@contextmanager
def time_limit() -> Iterator[None]:
    """The block is interrupted as the task of a prefork child is: by a signal."""
    _struck.clear()
    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def locked_until_limit(database: Database) -> Iterator[None]:
    """Nobody can write results until the limit has struck."""
    is_locked = threading.Event()
    _struck.clear()

    def hold() -> None:
        with locked(database):
            is_locked.set()
            _struck.wait(PATIENCE)

    stranger = threading.Thread(target=hold)
    stranger.start()
    is_locked.wait()
    yield
    stranger.join()


@on("postgresql", "mariadb", "sqlite")
def test_the_outcome_is_stored(database: Database, backend: DatabaseBackend) -> None:
    """The task has ended, so the limit is nothing to it. Nothing is locked after, and no connection is missing."""
    with locked_until_limit(database), time_limit():
        backend.store_result("struck", "in the end", states.SUCCESS)
    for task_id in ("second", "third"):
        backend.store_result(task_id, task_id, states.SUCCESS)

    found = [backend.get_result(task_id) for task_id in ("first", "struck", "second", "third")]
    assert found == [1, "in the end", "second", "third"]
    assert backend.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert database.errors() == []


@on("postgresql", "mariadb")
def test_the_outcome_is_stored_where_it_strikes_between_two_attempts(database: Database) -> None:
    """The server is away, and comes back after the limit."""
    backend = app_on(database.url, database_engine_options=quick(database.url)).backend
    database.server.shutdown()

    def bring_back() -> None:
        _struck.wait(PATIENCE)
        database.server.restart()

    keeper = threading.Thread(target=bring_back)
    with time_limit():
        keeper.start()
        backend.store_result("struck", "in the end", states.SUCCESS)
    keeper.join()

    assert (_struck.is_set(), backend.get_result("struck")) == (True, "in the end")
    close(backend)


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize("whose", ["another task's", "its own"])
def test_a_task_that_stores_an_outcome_learns_of_its_limit(
    database: Database, backend: DatabaseBackend, whose: str
) -> None:
    """It has not returned, so the limit is its own; what it stored as the limit struck is stored all the same."""
    app = backend.app

    @app.task(name=f"time_limit.{uuid()}", bind=True)
    def stores(self: Any) -> None:
        if whose == "its own":
            self.update_state(task_id="struck", state=states.SUCCESS, meta="in the end")
        else:
            app.backend.mark_as_done("struck", "in the end")

    with locked_until_limit(database), time_limit(), pytest.raises(SoftTimeLimitExceeded):
        stores()

    assert (_struck.is_set(), backend.get_result("struck")) == (True, "in the end")


@on("postgresql", "mariadb")
def test_a_state_of_a_task_that_runs_leaves_the_limit_to_the_task(database: Database, backend: DatabaseBackend) -> None:
    """It has not ended: what it does about its limit is its own."""
    with locked_until_limit(database), pytest.raises(SoftTimeLimitExceeded), time_limit():
        backend.store_result("struck", None, states.STARTED)


@on("postgresql", "mariadb")
@pytest.mark.parametrize("operation", ["forget", "cleanup"])
def test_a_statement_that_is_struck_leaves_no_answer_to_the_next(
    database: Database, backend: DatabaseBackend, operation: str
) -> None:
    """Of the statements that SQLAlchemy runs."""
    run = backend.cleanup if operation == "cleanup" else lambda: backend.forget("first")
    with locked(database), pytest.raises(SoftTimeLimitExceeded), time_limit():
        run()
    run()
    backend.store_result("second", 2, states.SUCCESS)

    assert backend.get_result("second") == 2
    assert database.errors() == []


@on("postgresql", "mariadb")
def test_a_ping_that_is_struck_leaves_no_answer_to_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is pinged that was idle."""
    options = {**POOL, **quick(database.url)}
    with proxied(database) as (proxy, url):
        backend = app_on(url, database_engine_options=options, result_backend_max_retries=0).backend
        backend.store_result("first", 1, states.SUCCESS)
        proxy.silent = True
        monkeypatch.setattr(pool, "PING_AFTER", 0.0)
        with pytest.raises(SoftTimeLimitExceeded), time_limit():
            backend.get_result("first")
        monkeypatch.undo()  # who comes next does so at once, and does not ping
        proxy.silent = False
        backend.store_result("third", 3, states.SUCCESS)

        assert [backend.get_task_meta(task_id, cache=False)["result"] for task_id in ("first", "third")] == [1, 3]
        close(backend)


def part_returned(backend: DatabaseBackend, task_id: str) -> None:
    """Store a result with a part of a chord: that takes a transaction."""
    backend.mark_as_done(task_id, task_id, request=request(task_id, chord={"task": "x"}, group_index=0))


def locked_until(database: Database, is_locked: threading.Event, arrived: int) -> None:
    """Let nobody else write until something can be read from a pipe."""
    with closing(sqlite3.connect(database.server.path(database.name), isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        is_locked.set()
        os.read(arrived, 1)


@contextmanager
def locked_until_struck(database: Database) -> Iterator[None]:
    """Nobody writes until a signal has arrived. Its handler then runs as soon as the driver is done waiting."""
    (arrived, arrives), is_locked = os.pipe(), threading.Event()
    os.set_blocking(arrives, False)
    stranger = threading.Thread(target=locked_until, args=(database, is_locked, arrived))
    stranger.start()
    is_locked.wait()
    before = signal.set_wakeup_fd(arrives)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(arrives, b".")  # in case that none has
        stranger.join()
        os.close(arrived)
        os.close(arrives)


def rollback_journal(engine: Engine) -> None:
    """Let commits wait for readers, as in a file that is not in WAL mode."""
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA journal_mode = DELETE"))


def stored(database: Database) -> list[str]:
    """The tasks whose results everybody sees."""
    return [task_id for (task_id,) in database.execute("SELECT task_id FROM celery_taskmeta ORDER BY id")]


@on("sqlite")
def test_a_transaction_that_is_struck_as_it_begins_is_not_left_open(database: Database) -> None:
    """Else whatever this process stores next goes into it, and nobody else can write."""
    backend = app_on(database.url, database_engine_options=POOL).backend
    backend.store_result("first", 1, states.SUCCESS)
    with locked_until_struck(database), time_limit():
        part_returned(backend, "struck")
    backend.store_result("second", 2, states.SUCCESS)
    part_returned(backend, "third")

    assert stored(database) == ["first", "struck", "second", "third"]
    close(backend)


@on("sqlite")
def test_a_transaction_that_cannot_be_committed_is_not_left_open(database: Database) -> None:
    options = {**POOL, "connect_args": {"timeout": 0}}
    settings = {"database_engine_options": options, "database_engine_callback": rollback_journal}
    backend = app_on(database.url, result_backend_max_retries=0, **settings).backend
    backend.store_result("first", 1, states.SUCCESS)
    with engine_on(database).connect() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT * FROM celery_taskmeta").all()
        with pytest.raises(BackendStoreError, match="cannot be reached"):
            part_returned(backend, "refused")
    backend.store_result("second", 2, states.SUCCESS)

    assert stored(database) == ["first", "second"]
    close(backend)
