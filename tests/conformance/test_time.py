"""Times are UTC, whatever the time zones of the app and of the server; cleanup deletes what is due, and only that."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from servers import Database
from support import Backends

HOUR = timedelta(hours=1)
#: The time zone of the app, and another one of the server, as each kind of server calls it.
ZONES = [
    ("America/Los_Angeles", {"postgresql": "Asia/Shanghai", "mariadb": "+08:00"}),
    ("Asia/Shanghai", {"postgresql": "America/Los_Angeles", "mariadb": "-08:00"}),
]


@pytest.fixture(params=ZONES, ids=["los-angeles", "shanghai"])
def zoned(request: pytest.FixtureRequest, database: Database, backends: Backends) -> DatabaseBackend:
    """A backend of an app in one time zone, on a database in another; results expire after an hour."""
    zone, servers = request.param
    if database.kind in ("postgresql", "portable"):
        database.execute(f"ALTER DATABASE {database.name} SET timezone = '{servers['postgresql']}'")
    options = (
        {"connect_args": {"init_command": f"SET time_zone = '{servers['mariadb']}'"}}
        if database.kind == "mariadb"
        else {}
    )
    return backends(timezone=zone, enable_utc=False, result_expires=HOUR, database_engine_options=options)


def aged(backend: DatabaseBackend, ages: dict[str, timedelta]) -> None:
    """Store a task and a group of each name, and let them be that old."""
    for name, age in ages.items():
        backend.store_result(name, 1, states.SUCCESS)
        GroupResult(name, [AsyncResult(name, app=backend.app)], app=backend.app).save()
        with backend.ResultSession() as session:
            session.get_one(backend.task_cls, id_of(session, backend.task_cls, "task_id", name)).date_done -= age
            session.get_one(
                backend.taskset_cls, id_of(session, backend.taskset_cls, "taskset_id", name)
            ).date_done -= age
            session.commit()


def id_of(session: Any, cls: Any, key: str, name: str) -> int:
    """The number of a row."""
    return int(session.query(cls.id).filter(getattr(cls, key) == name).scalar())


def left(backend: DatabaseBackend) -> list[str]:
    """The names of the tasks that are there; those of the groups must be the same."""
    with backend.ResultSession() as session:
        tasks = sorted(task_id for (task_id,) in session.query(backend.task_cls.task_id))
        groups = sorted(group_id for (group_id,) in session.query(backend.taskset_cls.taskset_id))
    assert tasks == groups
    return tasks


def test_date_done_is_utc(zoned: DatabaseBackend) -> None:
    """As the row has it and as Celery shows it."""
    before = utc_now().replace(microsecond=0)  # not every database keeps all of its digits
    zoned.store_result("t", 1, states.SUCCESS)
    date_done = AsyncResult("t", app=zoned.app).date_done

    assert date_done.tzinfo is None
    assert before <= date_done <= datetime.now(timezone.utc).replace(tzinfo=None)


def test_cleanup_deletes_what_is_due_and_only_that(zoned: DatabaseBackend) -> None:
    """A minute on either side of the hour: no offset of a time zone is as small."""
    minute = timedelta(minutes=1)
    aged(zoned, {"new": timedelta(0), "nearly": HOUR - minute, "due": HOUR + minute, "old": 30 * 24 * HOUR})
    zoned.cleanup()

    assert left(zoned) == ["nearly", "new"]


def test_unfinished_tasks_are_kept(backends: Backends) -> None:
    """They have no time at which they were done."""
    backend = backends(result_expires=1)
    backend.mark_as_started("t")
    backend.cleanup()

    assert backend.get_state("t") == "STARTED"


@pytest.mark.parametrize("expires", [0, None, timedelta(0)])
def test_for_ever(backends: Backends, expires: Any) -> None:
    """Celery's own backend deletes everything for 0, and fails for None."""
    backend = backends(result_expires=expires)
    aged(backend, {"old": 10_000 * 24 * HOUR})
    backend.cleanup()

    assert left(backend) == ["old"]


def test_an_expiry_in_seconds(backends: Backends) -> None:
    """As a number, as Celery takes it."""
    backend = backends(result_expires=3600)
    aged(backend, {"new": timedelta(0), "old": 2 * HOUR})
    backend.cleanup()

    assert left(backend) == ["new"]


def test_cleanup_of_more_than_one_batch(backends: Backends) -> None:
    """Batches are committed one by one until nothing is due."""
    backend = backends(result_expires=HOUR)
    old = utc_now() - 2 * HOUR
    rows = [{"task_id": f"t-{number}", "status": "SUCCESS", "date_done": old} for number in range(10_001)]
    with backend.ResultSession() as session:
        session.execute(backend.models.task.insert(), rows)
        session.commit()
    aged(backend, {"new": timedelta(0)})
    backend.cleanup()

    assert left(backend) == ["new"]


def test_cleanup_task_of_celery(backends: Backends) -> None:
    """What beat calls once a day."""
    backend = backends(result_expires=HOUR)
    aged(backend, {"new": timedelta(0), "old": 2 * HOUR})
    backend.app.tasks["celery.backend_cleanup"]()

    assert left(backend) == ["new"]
