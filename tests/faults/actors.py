"""What the processes of a load do. Each keeps a journal, so that it is known from outside how far it has come."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from celery import Celery, states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult

from celery_sql_results import DatabaseBackend
from concurrency.actors import quick

#: Pauses of half a second at most, so that a test does not wait for a backend that waits; and so many retries that a
#: server may take its time to start on a slow machine.
SETTINGS = {
    "result_backend_base_sleep_between_retries_ms": 10,
    "result_backend_max_sleep_between_retries_ms": 500,
    "result_backend_max_retries": 500,
}
#: Seconds between two stores of one writer: with four of them, about as many as a server here can take.
PAUSE = 0.002
#: Seconds after which a wait counts as hung: much longer than any fault lasts.
LONG = 60.0
#: Most repetitions of an id in the value that is stored under it: a few kilobytes, so that a cut meets the middle.
REPETITIONS = 400

#: What the lines of a journal begin with.
CALLED, RETURNED, FAILED, HUNG, WRONG, RETRIED, RAN, LONGEST = "+=!?#~*^"


class Journal(logging.Handler):
    """One line for each event, in a file that others may read at any time. As a handler of logs it notes retries."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("a", buffering=1)
        self._longest = 0.0

    def note(self, mark: str, text: str) -> None:
        """Add a line."""
        self._file.write(f"{mark}{' '.join(text.split())}\n")

    def took(self, seconds: float) -> None:
        """Add a line if nothing has taken longer."""
        if seconds > self._longest:
            self._longest = seconds
            self.note(LONGEST, f"{seconds:.3f}")

    def emit(self, record: logging.LogRecord) -> None:
        """Note a retry."""
        message = record.getMessage()
        if "retry" in message:
            self.note(RETRIED, message)


def journal(folder: Path, name: str) -> Journal:
    """The journal of this process."""
    noted = Journal(folder / name)
    logging.getLogger("celery_sql_results").addHandler(noted)
    logging.getLogger("celery_sql_results.writing.retry").setLevel(logging.DEBUG)  # where each retry is told
    return noted


def app_on(url: str, **settings: Any) -> Celery:
    """An app of its own. A setting that is None is left as it is by default."""
    app = Celery("faults", set_as_current=False)
    options = {"broker_url": "memory://", "database_engine_options": quick(url), **SETTINGS, **settings}
    given = {name: value for name, value in options.items() if value is not None}
    app.conf.update(result_backend=f"sql+{url}", **given)
    return app


def backend_on(url: str, **settings: Any) -> DatabaseBackend:
    """The backend of an app of its own."""
    backend: DatabaseBackend = app_on(url, **settings).backend
    return backend


def value_of(task_id: str) -> dict[str, str]:
    """What is stored under an id, as everybody knows."""
    return {"id": task_id, "more": task_id * (zlib.crc32(task_id.encode()) % REPETITIONS)}


def noted(into: Journal, task_id: str, work: Callable[[], Any]) -> None:
    """Do something for a task, and note how it has ended, and after how long."""
    began = time.monotonic()
    try:
        into.note(RETURNED if work() == value_of(task_id) else WRONG, task_id)
    except CeleryTimeoutError:
        into.note(HUNG, task_id)
    except Exception as error:  # noqa: BLE001  the test reports it, whatever it is
        into.note(FAILED, f"{task_id} {type(error).__name__}: {error} from {error.__cause__!r}")
    into.took(time.monotonic() - began)


def write(url: str, folder: Path, settings: Mapping[str, Any], writer: int, waiters: int) -> None:
    """Store one result after the other until told to stop, and nobody waits any more."""
    backend, mine = backend_on(url, **settings), journal(folder, f"writer-{writer}")
    last = {"stop", *(f"waiter-{waiter}.ended" for waiter in range(waiters))}
    for number in count():
        if last <= {path.name for path in folder.iterdir()}:
            return
        task_id = f"{folder.name}-{writer}-{number}"
        mine.note(CALLED, task_id)
        noted(mine, task_id, lambda id_=task_id: backend.store_result(id_, value_of(id_), states.SUCCESS))
        time.sleep(PAUSE)


def wait(url: str, folder: Path, settings: Mapping[str, Any], waiter: int, writers: int) -> None:
    """Wait for one result after the other, each before it is stored, until told to stop."""
    app, mine = app_on(url, **settings), journal(folder, f"waiter-{waiter}")
    for number in count(waiter):
        if (folder / "stop").exists():
            break
        task_id = coming(folder, number % writers)
        mine.note(CALLED, task_id)
        noted(mine, task_id, lambda id_=task_id: AsyncResult(id_, app=app).get(timeout=LONG))
    (folder / f"waiter-{waiter}.ended").touch()


def coming(folder: Path, writer: int) -> str:
    """The id that a writer will store after the one that it is at."""
    path = folder / f"writer-{writer}"
    text = path.read_text() if path.exists() else ""
    _before, _mark, after = text.rpartition(f"{CALLED}{folder.name}-{writer}-")
    return f"{folder.name}-{writer}-{int(after.split()[0]) + 2 if after else 0}"


def store_some(url: str, writer: int, number: int) -> None:
    """Store so many results as fast as it goes."""
    backend = backend_on(url)
    for task_id in (f"{writer}-{n}" for n in range(number)):
        backend.store_result(task_id, value_of(task_id), states.SUCCESS)
