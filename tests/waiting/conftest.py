"""Fixtures of these tests: backends that wait, threads that wait on them, and another process that writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, create_engine

from celery_sql_results import DatabaseBackend
from celery_sql_results.dialects import impl_for
from celery_sql_results.waiting import schedule
from conftest import fresh
from servers import Database
from servers.pool import ALL, Pool, on
from waiting.writer import Scribe, Writer

#: Seconds in which whatever is awaited must have come; generous, since a loaded machine is slow.
PATIENCE = 60.0
#: Threads that may wait at once.
THREADS = 120

#: Every kind, one that nobody knows included, and PostgreSQL with its older driver as well.
everywhere = on(*ALL, "psycopg2")

#: Calls a function in a thread of its own.
Aside = Callable[..., "Future[Any]"]


def until(condition: Callable[[], object], what: str = "what was awaited") -> None:
    """Return when a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.005)


def awaited(backend: DatabaseBackend) -> set[str]:
    """The ids that threads of this process wait for just now."""
    return set(backend.looker.awaited())


def until_awaited(backend: DatabaseBackend, *task_ids: str) -> None:
    """Return when some tasks are awaited and have been looked for by the thread or a caller at least once."""
    until(lambda: awaited(backend) >= set(task_ids), "the wait")


def need_news(engine: Engine) -> None:
    """Skip a test of notifications where the driver cannot listen, though the database can notify."""
    impl = impl_for(engine.dialect.name)
    if impl.supports_notify and not impl.can_listen(engine):
        pytest.skip(f"{engine.driver} cannot listen")


@pytest.fixture
def news(database: Database) -> None:
    """For tests that are about notifications: they are left out where the driver cannot listen."""
    need_news(sa.create_engine(database.url))


def until_told(backend: DatabaseBackend, *task_ids: str) -> None:
    """Return when changes of some tasks are made known, and so need no looks."""
    need_news(backend.database.engine)
    until_awaited(backend, *task_ids)
    until(lambda: backend.looker.is_told(task_ids), "the first notification")


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
def aside() -> Iterator[Aside]:
    """Calls functions in threads of their own."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool.submit


@pytest.fixture
def told_only(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    """No looks of its own accord: where changes are made known, a result comes so or not at all."""
    need_news(create_engine(database.url))
    monkeypatch.setattr(schedule, "FIRST_SAFETY", 1000.0)
    monkeypatch.setattr(schedule, "LAST_SAFETY", 1000.0)
