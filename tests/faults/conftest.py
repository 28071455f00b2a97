"""Fixtures of these tests: processes under load, and apps with a spool."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from celery_sql_results.writing.spool import emptying
from concurrency.nursery import Nursery
from faults.actors import backend_on
from faults.keepers import app_with_spool
from faults.load import Load
from servers import Database
from support import closed_at_the_end

#: `Load`, but for the processes and their folder.
Loads = Callable[..., Load]
#: `backend_on`, whose connections are closed when the test is over.
Backends = Callable[..., DatabaseBackend]
#: Makes an app whose results wait in the folder of the test.
Apps = Callable[..., Any]


@pytest.fixture
def load(nursery: Nursery, tmp_path: Path) -> Loads:
    """Makes the load of this test, from a URL."""
    folder = tmp_path / "load"
    folder.mkdir()
    return partial(_load, nursery, folder)


def _load(nursery: Nursery, folder: Path, url: str, **options: Any) -> Load:
    return Load(nursery, url, folder, **options)


@pytest.fixture
def backends() -> Iterator[Backends]:
    """Makes backends."""
    with closed_at_the_end() as made:

        def make(url: str, **settings: Any) -> DatabaseBackend:
            made.append(backend_on(url, **settings))
            return made[-1]

        yield make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where results wait."""
    return tmp_path / "spool"


@pytest.fixture
def apps(database: Database, folder: Path) -> Iterator[Apps]:
    """Make apps, and close what they have opened."""
    with closed_at_the_end() as made:

        def make(**settings: Any) -> Any:
            app = app_with_spool(database.url, folder, **{"task_default_queue": uuid.uuid4().hex, **settings})
            made.append(app.backend)
            return app

        yield make


@pytest.fixture
def backend(apps: Apps) -> DatabaseBackend:
    """A backend that has reached its database."""
    backend: DatabaseBackend = apps().backend
    backend.store_result("before", 0, states.SUCCESS)
    return backend


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody empties a spool by himself before the test says so."""
    monkeypatch.setattr(emptying, "FIRST_PAUSE", 3600.0)
