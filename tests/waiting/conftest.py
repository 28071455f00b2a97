"""Fixtures of these tests: backends that wait, threads that wait on them, and another process that writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool as ConnectionPool

from celery_sql_results import DatabaseBackend
from celery_sql_results.waiting import consumer as consumer_module
from conftest import fresh
from servers import Database
from servers.pool import ALL, Pool, on
from support import app_on
from waiting.writer import Scribe, Writer

#: Seconds in which whatever is awaited must have come; generous, since a loaded machine is slow.
PATIENCE = 60.0
#: Threads that may wait at once.
THREADS = 120

#: Every kind, one that nobody knows included, and PostgreSQL with its older driver as well.
everywhere = on(*ALL, "psycopg2")

Backends = Callable[..., DatabaseBackend]
#: Calls a function in a thread of its own.
Aside = Callable[..., "Future[Any]"]
Statements = Callable[[], AbstractContextManager[list[str]]]


def until(condition: Callable[[], object], what: str = "what was awaited") -> None:
    """Return when a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.005)


def awaited(backend: DatabaseBackend) -> set[str]:
    """The ids that threads of this process wait for just now."""
    return backend.consumer._snapshot()


def until_awaited(backend: DatabaseBackend, *task_ids: str) -> None:
    """Return when some tasks are awaited and have been looked for by the thread or a caller at least once."""
    until(lambda: awaited(backend) >= set(task_ids), "the wait")


def until_told(backend: DatabaseBackend, *task_ids: str) -> None:
    """Return when changes of some tasks are made known, and so need no looks."""
    until_awaited(backend, *task_ids)
    until(lambda: backend.consumer._notifier.tells(set(task_ids)), "the first notification")


def end_waiting(backend: DatabaseBackend) -> None:
    """End the thread that looks for results, which else lingers for a while."""
    backend.consumer._subscriptions.clear()
    thread = backend.consumer._thread
    if thread is not None:
        backend.consumer._notifier.interrupt()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def close(backend: DatabaseBackend) -> None:
    """End the thread and close the connections of a backend."""
    if "_consumer" in vars(backend):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(consumer_module, "LINGER", 0.0)
            end_waiting(backend)
    options = {**backend.engine_options, "short_lived_sessions": backend.short_lived_sessions}
    backend.session_manager.invalidate(backend.settings.url, **options)


@pytest.fixture(params=("postgresql", "mariadb", "sqlite"))
def database(request: pytest.FixtureRequest, servers: Pool) -> Iterator[Database]:
    """A fresh database for each way to wait; `everywhere` adds kinds that share one with these."""
    if request.param != "psycopg2":
        yield from fresh(servers, request.param)
        return
    for found in fresh(servers, "postgresql"):
        yield replace(found, url=found.server.url(found.name, driver="psycopg2"))


@pytest.fixture(scope="session")
def scribe() -> Iterator[Scribe]:
    """The other process."""
    with Scribe() as scribe:
        yield scribe


@pytest.fixture
def writer(scribe: Scribe, database: Database) -> Iterator[Writer]:
    """Another process that stores results in the test's database."""
    writer = Writer(scribe, database.url)
    yield writer
    writer.leave()


@pytest.fixture
def backends(database: Database) -> Iterator[Backends]:
    """Makes backends: `backends(result_extended=True)` is one of an app of its own with that setting."""
    made: list[DatabaseBackend] = []

    def make(url: str | None = None, **settings: Any) -> DatabaseBackend:
        made.append(app_on(url or database.url, **settings).backend)
        return made[-1]

    yield make
    for backend in made:
        close(backend)


@pytest.fixture
def backend(backends: Backends) -> DatabaseBackend:
    """A backend with the defaults."""
    return backends()


@pytest.fixture
def aside() -> Iterator[Aside]:
    """Calls functions in threads of their own."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool.submit


@pytest.fixture
def told_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No looks of its own accord: where changes are made known, a result comes so or not at all."""
    monkeypatch.setattr(consumer_module, "FIRST_SAFETY", 1000.0)
    monkeypatch.setattr(consumer_module, "LAST_SAFETY", 1000.0)


@pytest.fixture
def statements(database: Database) -> Iterator[Statements]:
    """`with statements() as seen: …` fills `seen` with what the server was asked meanwhile; on SQLite, what SQLite was.

    Ask for it before a backend: SQLite tells only connections that are opened after.
    """
    if database.kind != "sqlite":
        yield database.statements
        return
    seen: list[str] = []

    def trace(connection: Any, _record: object) -> None:
        connection.set_trace_callback(seen.append)

    @contextmanager
    def collect() -> Iterator[list[str]]:
        seen.clear()
        yield seen

    event.listen(ConnectionPool, "connect", trace)
    yield collect
    event.remove(ConnectionPool, "connect", trace)
