"""The connection for notifications falls silent, or talks nonsense: no wait is later than its looks, by a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states

from celery_sql_results import DatabaseBackend
from celery_sql_results.waiting import listening
from faults.trouble import proxied
from servers import Database
from servers.pool import on
from servers.proxy import Proxy
from support import Backends, app_on, close
from waiting.conftest import PATIENCE, Aside, until, until_awaited, until_told
from waiting.test_crowds import ids
from waiting.test_faults import LISTENERS, complaints
from waiting.test_traces import listeners

with_notifications = on("postgresql", "psycopg2")
WAITERS = 50
#: Seconds: the longest pause between two looks, and what a loaded machine may add to fifty threads.
LATEST, SLACK = 1.0, 2.0


@pytest.fixture
def proxy(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Proxy, str]]:
    """What stands before the connection for notifications alone; a lost one is opened again soon."""
    monkeypatch.setattr(listening, "FIRST_RECONNECT", 0.05)
    monkeypatch.setattr(listening, "LAST_RECONNECT", 0.1)
    with proxied(database) as made:
        yield made
        made[0].silent = False


def in_time(backend: DatabaseBackend, aside: Aside, silence: Callable[[], object]) -> list[float]:
    """How late each of 50 waits was that began before a silence, in seconds."""

    def wait(task_id: str) -> float:
        backend.app.AsyncResult(task_id).get(timeout=PATIENCE)
        return time.monotonic()

    returned: list[Future[Any]] = [aside(wait, task_id) for task_id in ids(WAITERS)]
    until_awaited(backend, *ids(WAITERS))
    silence()
    stored = []
    for task_id in ids(WAITERS):
        backend.store_result(task_id, task_id, states.SUCCESS)
        stored.append(time.monotonic())
    return [future.result() - then for future, then in zip(returned, stored, strict=True)]


def while_connecting(backend: DatabaseBackend, proxy: Proxy, database: Database) -> None:
    """It was silent from the beginning."""


def while_testing(backend: DatabaseBackend, proxy: Proxy, database: Database) -> None:
    """`LISTEN` was sent: the answer, or the test message, is held up."""
    until(lambda: listeners(database))
    proxy.silent = True


def while_listening(backend: DatabaseBackend, proxy: Proxy, database: Database) -> None:
    """All was well until now."""
    until_told(backend, *ids(WAITERS))
    proxy.silent = True


def while_pinging(backend: DatabaseBackend, proxy: Proxy, database: Database) -> None:
    """A quiet connection is asked for a sign of life, and does not answer yet."""
    while_listening(backend, proxy, database)
    time.sleep(2 * listening.KEEPALIVE_INTERVAL)


def while_closing(backend: DatabaseBackend, proxy: Proxy, database: Database) -> None:
    """It did not answer in time, so it is given up and closed, and another is being opened."""
    while_listening(backend, proxy, database)
    until(lambda: not backend.looker.is_told(ids(1)))


STATES = [while_connecting, while_testing, while_listening, while_pinging, while_closing]


@with_notifications
@pytest.mark.parametrize("state", STATES)
@pytest.mark.usefixtures("news")
def test_nobody_is_late_by_more_than_a_second(
    database: Database,
    backends: Backends,
    proxy: tuple[Proxy, str],
    aside: Aside,
    monkeypatch: pytest.MonkeyPatch,
    state: Callable[[DatabaseBackend, Proxy, Database], None],
) -> None:
    """In whatever state it falls silent; and when it is over, changes are made known again."""
    if state in (while_pinging, while_closing):
        monkeypatch.setattr(listening, "KEEPALIVE_INTERVAL", 0.2)
        monkeypatch.setattr(listening, "TEST_TIMEOUT", 0.5 if state is while_closing else 2.0)
    gate, url = proxy
    gate.silent, gate.delay = state is while_connecting, 0.1 if state is while_testing else 0.0
    backend = backends(database_listen_url=url)
    late = in_time(backend, aside, lambda: state(backend, gate, database))

    assert max(late) < LATEST + SLACK
    gate.silent, gate.delay = False, 0.0
    value = aside(backend.app.AsyncResult("after").get, timeout=PATIENCE)
    until_told(backend, "after")
    backend.store_result("after", 1, states.SUCCESS)
    assert value.result() == 1


@with_notifications
@pytest.mark.usefixtures("news")
def test_an_app_is_closed_while_it_is_silent(
    database: Database, backends: Backends, proxy: tuple[Proxy, str], aside: Aside
) -> None:
    """The thread that looks ends all the same, and with it that which listens when it is over."""
    gate, url = proxy
    gate.silent = True
    backend = backends(database_listen_url=url)
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until(lambda: len(backend.looker.threads) == 2)
    looks, listens = backend.looker.threads
    backend.store_result("t", 1, states.SUCCESS)
    assert value.result() == 1
    backend.app.close()
    looks.join(PATIENCE)
    before = (looks.is_alive(), listens.is_alive())
    gate.silent = False
    listens.join(PATIENCE)

    assert (before, listens.is_alive(), listeners(database)) == ((False, True), False, 0)


@with_notifications
@pytest.mark.usefixtures("told_only")
def test_a_test_message_that_was_late(
    backends: Backends,
    proxy: tuple[Proxy, str],
    aside: Aside,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection is given up, with one warning; it is tried again, and a notification alone brings a result."""
    monkeypatch.setattr(listening, "TEST_TIMEOUT", 0.2)
    gate, url = proxy
    gate.delay = 0.5
    backend = backends(database_listen_url=url)
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until(lambda: complaints(caplog))
    time.sleep(2.0)
    gate.delay = 0.0
    until_told(backend, "t")
    backend.store_result("t", 1, states.SUCCESS)

    assert value.result() == 1
    assert [("database_listen_url" in complaint) for complaint in complaints(caplog)] == [True]


@with_notifications
def test_floods(database: Database, backend: DatabaseBackend, aside: Aside) -> None:
    """Somebody sends messages to every channel of ours: words like our own tests, ids that nobody awaits, no ids.

    None of them asks for a look, and what is awaited is made known meanwhile.
    """
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_told(backend, "t")
    [(channel,)] = database.execute("SELECT channel FROM celery_taskmeta_waiters")
    before = backend.looker.looks
    began = time.monotonic()
    for word in ("test", "", "x" * 7000, "\x7f"):
        database.execute(f"SELECT count(pg_notify('{channel}', '{word}' || n % 9)) FROM generate_series(1, 20000) n")
        database.execute(f"SELECT count(pg_notify('{channel}', '{word}'))")
    looks, seconds = backend.looker.looks - before, time.monotonic() - began
    backend.store_result("t", 1, states.SUCCESS)

    assert value.result() == 1
    assert looks <= 10 + seconds  # those that there are anyway: ten until a wait is a second old, then one each second


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.usefixtures("told_only")
def test_ids_in_another_encoding(postgresql: Database, aside: Aside, driver: str) -> None:
    """A notification of a LATIN1 database: its bytes are no UTF-8."""
    name = f"{postgresql.name}_latin1"
    postgresql.server.execute(
        f"CREATE DATABASE \"{name}\" ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    backend = app_on(postgresql.server.url(name, driver=driver)).backend
    try:
        values = [aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE) for task_id in ("é", "plain")]
        until_told(backend, "é", "plain")
        for task_id in ("é", "plain"):
            backend.store_result(task_id, task_id, states.SUCCESS)
        assert [value.result() for value in values] == ["é", "plain"]
    finally:
        close(backend)
        postgresql.server.drop_database(name)


@with_notifications
@pytest.mark.usefixtures("told_only")
def test_a_message_that_is_no_text(database: Database, backend: DatabaseBackend, aside: Aside) -> None:
    """A neighbour in an encoding of his own sends bytes; what is awaited is made known all the same."""
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_told(backend, "t")
    [(channel,)] = database.execute("SELECT channel FROM celery_taskmeta_waiters")
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    with engine.connect() as neighbour:
        neighbour.exec_driver_sql(f"NOTIFY \"{channel}\", E'\\u00e9\\U0001F600'")
        neighbour.commit()
    assert database.execute(f"SELECT count(*) {LISTENERS}") == [(1,)]
    backend.store_result("t", 1, states.SUCCESS)

    assert value.result() == 1
