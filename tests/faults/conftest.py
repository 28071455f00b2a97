"""Fixtures of these tests: processes under load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from celery_sql_results import DatabaseBackend
from concurrency.nursery import Nursery
from faults.actors import backend_on
from faults.load import Load
from support import close

#: `Load`, but for the processes and their folder.
Loads = Callable[..., Load]
#: `backend_on`, whose connections are closed when the test is over.
Backends = Callable[..., DatabaseBackend]


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
    made: list[DatabaseBackend] = []

    def make(url: str, **settings: Any) -> DatabaseBackend:
        made.append(backend_on(url, **settings))
        return made[-1]

    yield make
    for backend in made:
        close(backend)
