"""Backends on a fresh database, and what its server is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from celery_sql_results import DatabaseBackend
from servers import Database
from support import app_on, close

Backends = Callable[..., DatabaseBackend]
Statements = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture
def backends(database: Database) -> Iterator[Backends]:
    """Makes backends: `backends(result_extended=True)` is one of an app of its own with that setting.

    They are on the test's database unless `url` says otherwise.
    """
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

    event.listen(Pool, "connect", trace)
    yield collect
    event.remove(Pool, "connect", trace)
