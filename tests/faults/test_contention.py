"""Sessions in each other's way: lock time-outs, deadlocks, serialization failures, a file that all want to write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from concurrency.actors import store_at_random
from concurrency.nursery import Nursery, Outcome, errors
from concurrency.test_writes import allowed, by_id, final_states
from faults.actors import LONG, store_some, value_of
from faults.conftest import Backends, Loads
from faults.load import Verdict, until
from faults.trouble import connections, engine_on, locked
from servers import Database
from servers.pool import on

#: Processes that write one file of SQLite at once, and what each stores.
CROWD, EACH = 20, 50
#: Processes that write the same few ids under SERIALIZABLE.
RIVALS, STORES, IDS = 4, 150, 3


@contextmanager
def storing(backend: DatabaseBackend, task_id: str) -> Iterator[None]:
    """Store a result in another thread, which must be done soon after the block."""
    failed: list[BaseException] = []

    def store() -> None:
        try:
            backend.store_result(task_id, value_of(task_id), states.SUCCESS)
        except BaseException as error:  # noqa: BLE001  the test reports it, whatever it is
            failed.append(error)

    thread = threading.Thread(target=store)
    thread.start()
    try:
        yield
    finally:
        thread.join(LONG)
    assert failed == []
    assert not thread.is_alive()


@pytest.fixture
def each_retry(caplog: pytest.LogCaptureFixture) -> None:
    """The log tells of each retry."""
    caplog.set_level(logging.DEBUG, "celery_sql_results.writing.retry")


def retries(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package has logged of retries."""
    return [record.getMessage() for record in caplog.records if "; retry" in record.getMessage()]


@contextmanager
def impatient(database: Database) -> Iterator[dict[str, Any]]:
    """The database lets nobody wait long for a lock; with settings that a load needs for it."""
    if database.kind == "sqlite":
        yield {"database_engine_options": {"connect_args": {"timeout": 0.5}}}
    elif database.kind == "postgresql":
        database.execute(f"ALTER DATABASE {database.name} SET lock_timeout = '500ms'")
        yield {}
    else:
        with setting(database, "innodb_lock_wait_timeout", "1"):
            yield {}


@contextmanager
def setting(database: Database, name: str, value: str) -> Iterator[None]:
    """A global variable of MariaDB, for sessions that begin in the block."""
    ((before,),) = database.execute(f"SELECT @@GLOBAL.{name}")
    database.execute(f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        database.execute(f"SET GLOBAL {name} = {before}")


# -- one by one, and with what connections ---------------------------------------------------------------------------


@pytest.mark.usefixtures("each_retry")
def test_lock_time_out(mariadb: Database, backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """Another session holds the row for longer than the server lets us wait."""
    with setting(mariadb, "innodb_lock_wait_timeout", "1"):
        backend = backends(mariadb.url)
        backend.store_result("t", None, states.STARTED)
        ours = connections(mariadb)
        with locked(mariadb) as stranger, storing(backend, "t"):
            until(lambda: retries(caplog), "the store is tried again")
            stranger.commit()

    assert "1205" in retries(caplog)[0]
    assert backend.get_result("t") == value_of("t")
    assert connections(mariadb) == ours


def waits_for_a_lock(database: Database) -> bool:
    """Whether somebody does just now."""
    query = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    return bool(database.execute(query))


@pytest.mark.usefixtures("each_retry")
def test_deadlock(mariadb: Database, backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """We wait for a stranger's row and for the gap before it, where the stranger then wants to put another one.

    The stranger has written more, so that the server gives us up.
    """
    insert = "INSERT INTO celery_taskmeta (id, task_id, status) VALUES (1000 + {0}, 'task-{0:03}', 'PENDING')"
    backend = backends(mariadb.url)
    backend.store_result("a", 1, states.SUCCESS)
    ours = connections(mariadb)
    with engine_on(mariadb).connect() as stranger:
        for number in range(100, 150):
            stranger.exec_driver_sql(insert.format(number))
        with storing(backend, "task-100"):
            until(lambda: waits_for_a_lock(mariadb), "the store waits")
            stranger.exec_driver_sql(insert.format(99))
            stranger.commit()

    assert ["1213" in message for message in retries(caplog)] == [True]
    assert backend.get_result("task-100") == value_of("task-100")
    assert connections(mariadb) == ours


@pytest.mark.usefixtures("each_retry")
def test_serialization_failure(postgresql: Database, backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """Another session changes the row after our snapshot was taken."""
    postgresql.execute(f"ALTER DATABASE {postgresql.name} SET default_transaction_isolation = 'serializable'")
    backend = backends(postgresql.url)
    backend.store_result("t", None, states.STARTED)
    ours = connections(postgresql)
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{postgresql.name}' AND wait_event_type = 'Lock'"
    with engine_on(postgresql).connect() as stranger:
        stranger.exec_driver_sql("UPDATE celery_taskmeta SET status = 'RETRY' WHERE task_id = 't'")
        with storing(backend, "t"):
            until(lambda: postgresql.execute(waiting), "the store waits")
            stranger.commit()

    assert ["could not serialize" in message for message in retries(caplog)] == [True]
    assert backend.get_result("t") == value_of("t")
    assert connections(postgresql) == ours


# -- many at once ------------------------------------------------------------------------------------------------------


def test_serializable_rivals(postgresql: Database, nursery: Nursery, backends: Backends) -> None:
    """Processes that write the same ids: each write gets through, and what is final stays final."""
    postgresql.execute(f"ALTER DATABASE {postgresql.name} SET default_transaction_isolation = 'serializable'")
    backends(postgresql.url).store_result("first", 1, states.SUCCESS)
    calls = [(store_at_random, (postgresql.url, rival, STORES, IDS)) for rival in range(RIVALS)]
    written: list[Outcome] = []

    def has_failed() -> bool:
        """Whether two have met; how soon they do is a matter of chance, and what is final is not changed any more."""
        postgresql.execute("TRUNCATE celery_taskmeta")
        written[:] = nursery.at_once(calls)
        assert errors(written) == []
        return any("could not serialize" in message for outcome in written for _, message in outcome.logged)

    until(has_failed, "two processes meet")
    writes = by_id(written)
    left = final_states(postgresql, set(writes))
    assert {task_id: row for task_id, row in left.items() if row not in allowed(writes[task_id])} == {}


@on("postgresql", "mariadb", "sqlite")
def test_locked_for_a_while(database: Database, load: Loads) -> None:
    """A stranger keeps everybody from writing for longer than the database lets them wait."""
    with impatient(database) as settings, load(database.url, settings=settings) as under:
        with locked(database):
            under.stand_still()
        under.go_on()

    assert under.verdict() == Verdict()


def test_sqlite_written_by_many(sqlite: Database, nursery: Nursery) -> None:
    """All at once, tables included."""
    outcomes = nursery.at_once([(store_some, (sqlite.url, writer, EACH)) for writer in range(CROWD)])

    assert errors(outcomes) == []
    assert sqlite.execute("SELECT count(*), count(DISTINCT task_id) FROM celery_taskmeta") == [(CROWD * EACH,) * 2]
