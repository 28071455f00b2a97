"""A soft time limit that strikes while a result is stored: the next task of the process is not harmed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import states
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import StatementError

from celery_sql_results import DatabaseBackend
from faults.trouble import locked
from servers import Database
from servers.pool import on
from support import app_on, close

#: Seconds until the limit strikes, and until SQLite, which no signal interrupts, stops waiting for the lock.
LIMIT, BUSY = 0.3, 0.5
#: One connection, for which nobody waits long: one that is not given back is missed.
POOL = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}


@pytest.fixture
def backend(database: Database) -> Iterator[DatabaseBackend]:
    """A backend with one connection, which tries nothing twice."""
    options = {**POOL, "connect_args": {"timeout": BUSY}} if database.kind == "sqlite" else POOL
    made: DatabaseBackend = app_on(database.url, database_engine_options=options, result_backend_max_retries=0).backend
    made.store_result("first", 1, states.SUCCESS)
    yield made
    close(made)


def strike(*_: object) -> None:
    """Do what a child of a prefork pool does when the soft limit is over."""
    raise SoftTimeLimitExceeded


@contextmanager
def time_limit() -> Iterator[None]:
    """The block is interrupted as the task of a prefork child is: by a signal."""
    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@on("postgresql", "mariadb", "sqlite")
def test_the_next_result_is_stored(database: Database, backend: DatabaseBackend) -> None:
    """And read, twice over the one connection that there may be; nothing is locked."""
    with locked(database), pytest.raises((SoftTimeLimitExceeded, StatementError)), time_limit():
        backend.store_result("struck", "too long", states.SUCCESS)
    backend.mark_as_failure("struck", SoftTimeLimitExceeded())
    for task_id in ("second", "third"):
        backend.store_result(task_id, task_id, states.SUCCESS)

    assert [backend.get_result(task_id) for task_id in ("first", "second", "third")] == [1, "second", "third"]
    assert backend.get_state("struck") in {states.FAILURE, states.SUCCESS}
    assert backend.store.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert database.errors() == []
