"""The database is away when the app starts, or goes and comes back."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from celery import states
from celery.exceptions import BackendGetMetaError
from celery.result import AsyncResult, GroupResult
from sqlalchemy.exc import DBAPIError

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import on
from support import Backends

databases = on("postgresql", "mariadb")
QUICK = {"result_backend_max_retries": 2, "result_backend_base_sleep_between_retries_ms": 1}


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The package's warnings, without those of the threads that still look for what other tests awaited."""
    ours = (record for record in caplog.records if record.name == "celery_sql_results.writing.outage")
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def retries_of(caplog: pytest.LogCaptureFixture) -> int:
    """How often something was tried again."""
    return sum(record.name == "celery_sql_results.writing.retry" for record in caplog.records)


@databases
def test_down_at_start(database: Database, backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """The backend is made with a warning; its first use works when the database is back."""
    database.server.shutdown()
    backend = backends(**QUICK)
    said = warnings_of(caplog)
    database.server.restart()
    backend.store_result("t", 1, states.SUCCESS)

    assert backend.get_result("t") == 1
    assert len(said) == 1
    assert said[0].startswith(f"trouble with the result database {backend.as_uri()} since ")


@databases
def test_restart_between_two_uses(
    database: Database, backend: DatabaseBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """The dead connection is replaced at once: no error, no warning."""
    backend.store_result("t", 1, states.SUCCESS)
    database.server.restart()
    backend.store_result("u", 2, states.SUCCESS)

    assert [backend.get_result(task_id) for task_id in "tu"] == [1, 2]
    assert warnings_of(caplog) == []


@databases
def test_restart_while_somebody_waits(database: Database, backend: DatabaseBackend) -> None:
    """The wait goes on, and ends with the result."""
    found: list[object] = []
    result = AsyncResult("t", app=backend.app)
    waiting = threading.Thread(target=lambda: found.append(result.get(timeout=60)))
    waiting.start()
    while backend.database.impl.can_listen(backend.database.engine) and not listeners(database):
        time.sleep(0.01)
    database.server.restart()
    backend.store_result("t", 1, states.SUCCESS)
    waiting.join()

    assert found == [1]


def listeners(database: Database) -> int:
    """How many connections listen."""
    return len(database.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"))


@databases
@pytest.mark.parametrize("always_retry", [None, True])
def test_so_many_retries_and_no_more(
    database: Database, backends: Backends, always_retry: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where Celery's own retries are asked for: they do not multiply ours."""
    more = {} if always_retry is None else {"result_backend_always_retry": always_retry}
    backend = backends(**QUICK, **more)
    caplog.set_level(logging.DEBUG, "celery_sql_results.writing.retry")
    database.server.shutdown()
    with pytest.raises(BackendGetMetaError):
        backend.get_task_meta("t")
    tasks = retries_of(caplog)
    with pytest.raises(DBAPIError):
        GroupResult.restore("g", backend=backend, app=backend.app)
    groups = retries_of(caplog) - tasks

    assert (tasks, groups) == (2, 2)


@databases
def test_never_retry(database: Database, backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """`result_backend_always_retry` set to False."""
    backend = backends(result_backend_always_retry=False)
    caplog.set_level(logging.DEBUG, "celery_sql_results.writing.retry")
    database.server.shutdown()
    with pytest.raises(BackendGetMetaError):
        backend.get_task_meta("t")

    assert retries_of(caplog) == 0
