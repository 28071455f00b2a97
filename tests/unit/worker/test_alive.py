"""What a worker tells of itself, and when."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.signals import worker_ready, worker_shutdown

from celery_sql_results.models import NAME_LENGTH
from celery_sql_results.worker import Heart, Told
from servers import Database
from support import Backends, app_on, request

#: Seconds in which what was asked for must have happened; generous, since a loaded machine is slow.
PATIENCE = 60.0


class Pool:
    """A pool of a worker."""

    num_processes = 8


class Consumer:
    """Who sends a worker's signals."""

    def __init__(self, app: Celery, hostname: Any = "w@host", pool: Any = None) -> None:
        self.app, self.hostname, self.pool = app, hostname, pool or Pool()


def heart(backend: Any, consumer: Consumer | None = None, write: Callable[..., Any] | None = None) -> Heart:
    """That of a worker of a backend's app."""
    told = Told.by(consumer or Consumer(backend.app), lambda: 3)
    return Heart(backend.database, write or (lambda _name, operation: operation()), told, timedelta(days=1))


def rows(backend: Any) -> list[dict[str, Any]]:
    """All runs that are known."""
    return list(backend.database.rows.workers.all())


def test_what_is_told(sqlite: Database, backends: Backends) -> None:
    """What people ask of a worker."""
    backend = backends(sqlite.url)
    heart(backend).beat()
    [found] = rows(backend)

    assert {name: found[name] for name in ("name", "app", "spooled", "concurrency", "date_ended", "is_gone")} == {
        "name": "w@host",
        "app": "tests",
        "spooled": 3,
        "concurrency": 8,
        "date_ended": None,
        "is_gone": False,
    }


@pytest.mark.parametrize("name", ["w" * 200, "w\x00@host", b"w@host", "wörker@höst"])
def test_names_are_as_in_the_rows_of_tasks(name: Any, sqlite: Database, backends: Backends) -> None:
    """What no column takes is escaped, and what is too long is cut."""
    backend = backends(sqlite.url)
    heart(backend, Consumer(backend.app, name)).beat()
    backend.store_result("t", 1, "SUCCESS", request=request(hostname=name))
    [found] = rows(backend)

    assert found["name"] == backend.recorded("t")["worker"]
    assert len(found["name"]) <= NAME_LENGTH


def test_a_pool_that_tells_nothing(sqlite: Database, backends: Backends) -> None:
    """Its size is unknown."""
    backend = backends(sqlite.url)
    heart(backend, Consumer(backend.app, pool=object())).beat()
    [found] = rows(backend)

    assert found["concurrency"] is None


def test_since_when_all_is_well(sqlite: Database, backends: Backends) -> None:
    """From the first beat on; again from the first after one that has failed."""
    errors: list[Exception] = []

    def write(_name: str, operation: Callable[[], Any]) -> Any:
        if errors:
            raise errors.pop()
        return operation()

    beating = heart(backends(sqlite.url), write=write)
    found = []
    for error in (None, None, OSError("away"), None):
        if error:
            errors.append(error)
            with pytest.raises(OSError, match="away"):
                beating.beat()
        else:
            beating.beat()
        found.append(beating.well_since)
    first, second, failed, again = found

    assert first == second
    assert (failed, first < again < failed) == (float("inf"), True)


def test_the_end_before_the_first_beat(sqlite: Database, backends: Backends) -> None:
    """Nothing is said, and nobody asks the database."""
    backend = backends(sqlite.url)
    beating = heart(backend)
    beating.end()
    beating.beat()
    beating.end()
    [found] = rows(backend)

    assert found["is_gone"]


def test_two_workers_of_one_app_in_one_process(sqlite: Database) -> None:
    """Each has its rounds, and ends by itself."""
    app = app_on(sqlite.url)
    for name in ("v@host", "w@host"):
        worker_ready.send(sender=Consumer(app, name))
    deadline = time.monotonic() + PATIENCE
    while len(rows(app.backend)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    worker_shutdown.send(sender=Consumer(app, "v@host"))
    found = [(row["name"], row["is_gone"]) for row in rows(app.backend)]
    worker_shutdown.send(sender=Consumer(app, "w@host"))
    app.close()

    assert found == [("v@host", True), ("w@host", False)]
    assert [row["is_gone"] for row in rows(app.backend)] == [True, True]
