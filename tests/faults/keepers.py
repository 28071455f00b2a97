"""What the processes of the tests of the spool do, the tasks of their workers, and what is to be seen of it."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from celery import states
from sqlalchemy import event
from sqlalchemy.engine import Engine

from acceptance import shop
from celery_sql_results import DatabaseBackend
from concurrency.actors import quick
from servers import Database
from support import app_on


def app_with_spool(url: str, folder: Path, **settings: Any) -> Any:
    """An app whose results wait in a folder when they must, after few attempts."""
    given = {
        "database_spool_dir": str(folder),
        "database_retry_window": 0.05,
        "result_backend_base_sleep_between_retries_ms": 5,
        "database_engine_options": quick(url),
        "database_create_tables_at_setup": False,
    }
    return app_on(url, **{**given, **settings})


def store_one(url: str, folder: Path, task_id: str) -> int:
    """Store a result that nobody waits for, and return how many still wait in the spool."""
    backend: DatabaseBackend = app_with_spool(url, folder).backend
    backend.store_result(task_id, None, states.SUCCESS)
    return backend.spooled


def replay(url: str, folder: Path) -> None:
    """Empty the spool, as a worker does."""
    app_with_spool(url, folder).backend.replay()


def waiting(folder: Path) -> list[Path]:
    """The entries in a spool."""
    return sorted(folder.glob("*/*.json"))


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged about the spool, as a warning or worse."""
    ours = (record for record in caplog.records if record.name.startswith("celery_sql_results.writing.spool"))
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def states_in(database: Database) -> dict[str, str]:
    """The states of all tasks."""
    return dict(database.execute("SELECT task_id, status FROM celery_taskmeta"))  # type: ignore[arg-type]


def die(*given: Any) -> None:
    """Die after a certain entry was stored, before it is removed."""
    values = given[3]
    if any(str(value).endswith("-fatal") for value in (values.values() if isinstance(values, dict) else values)):
        os.kill(os.getpid(), signal.SIGKILL)


def mortal(engine: Engine) -> None:
    """Each statement may be the last."""
    event.listen(engine, "after_cursor_execute", die)


def replay_and_die(url: str, folder: Path) -> None:
    """Empty the spool, but for what is left at a sudden death."""
    app_with_spool(url, folder, database_engine_callback=mortal).backend.replay()


def emptied(backend: DatabaseBackend) -> bool:
    """Wait until nothing waits in the spool."""
    while backend.spooled:
        time.sleep(0.01)
    return True


def until(path: str) -> str:
    """Run until there is a file."""
    while not Path(path).exists():
        time.sleep(0.01)
    return path


def equipped(app: Any) -> Any:
    """The app with the tasks of this module."""
    app.task(name="until")(until)
    return app


if shop.VARIABLE in os.environ:
    equipped(shop.app)
