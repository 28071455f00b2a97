"""A worker tells the database that it is alive, so that people and other workers can see who is.

Each run of a worker has a row, which it renews in a thread of its own: emptying a spool may take long, and a worker
that is busy with that is not dead. A worker that has ended says so, and its row stays for a while: a task that began in
that run, and has no outcome, is known to be lost, while nobody can tell of a worker that has no row.
"""

from __future__ import annotations

import math
import os
import platform
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib.metadata import version
from typing import Any, Final, NamedTuple
from uuid import uuid4

from celery_sql_results._compat import memoized_property, private
from celery_sql_results.boundaries import caught, undone
from celery_sql_results.ids import as_text
from celery_sql_results.models import utc_now
from celery_sql_results.payload import name
from celery_sql_results.rows import Database
from celery_sql_results.writing import bounded

__all__ = ["HEARTBEAT", "Heart", "Told"]

#: Seconds between two times that a worker says that it is there. With a hundred workers, that is seven short UPDATEs a
#: second.
HEARTBEAT: Final = 15.0
#: Seconds after which the next beat is late: two of them, each jittered.
LATE: Final = 2.5 * HEARTBEAT
#: Seconds that the end of a worker waits to say so: nobody is in need of it.
PARTING: Final = 1.5
#: Seconds between two times that rows of workers that are long gone are deleted.
SWEEP_EVERY: Final = 600.0
#: For how long a row of a worker that is gone is kept at least; longer, as long as results are. Where those are kept
#: for ever, :data:`KEPT_LONGEST`: names of hosts may be new with each start.
KEPT, KEPT_LONGEST = timedelta(days=1), timedelta(days=30)


class Told(NamedTuple):
    """What a worker tells of itself.

    Attributes:
        worker: its name among workers.
        app: the name of its app.
        spooled: how many results wait in its spool.
        busy: how many tasks it runs, and ``concurrency`` how many it may run at once; ``None`` if that is unknown.
    """

    worker: object
    app: object
    spooled: Callable[[], int]
    busy: Callable[[], int | None]
    concurrency: Callable[[], int | None]

    @classmethod
    def by(cls, consumer: Any, spooled: Callable[[], int]) -> Told:
        """What a worker tells, of which a signal of Celery's has brought the consumer."""
        return cls(consumer.hostname, consumer.app.main, spooled, _active, lambda: _size_of(consumer.pool))


def _active() -> int | None:
    active = private("celery.worker.state:active_requests")
    return None if active is None else len(active)


def _size_of(pool: Any) -> int | None:
    with caught():  # it may be of any kind
        return int(pool.num_processes)
    return None


class Heart:
    """Says that one run of a worker is there.

    Args:
        database: where it is said.
        write: does what is written, by what the log calls it.
        told: what the worker tells of itself.
        expires: how long results are kept, if not for ever.
    """

    def __init__(
        self, database: Database, write: Callable[[str, Callable[[], Any]], Any], told: Told, expires: timedelta | None
    ) -> None:
        self._database, self._write, self._told = database, write, told
        self._kept = max(expires or KEPT_LONGEST, KEPT)
        self._run_id = str(uuid4())
        self._began = time.monotonic()
        self._started = utc_now()
        self._beat_at = self._swept_at = -math.inf
        #: Since when each beat has come in time, by the monotonic clock: as long, the others could tell as well.
        self.well_since = math.inf

    @property
    def tasks(self) -> Mapping[str, Callable[[], object]]:
        """What is to be done each :data:`HEARTBEAT` seconds, by what the log calls it."""
        return {"telling that this worker is alive": self.beat, "forgetting workers of old": self.sweep}

    def beat(self) -> None:
        """Say that the worker is there, if there is a table for it.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot be reached.
        """
        began = time.monotonic()
        with undone(self._falter):
            workers = self._database.rows.workers
            if workers is None:
                return
            self._write("telling that this worker is alive", lambda: workers.seen(self._row()))
        if self.well_since == math.inf or began - self._beat_at > LATE:
            self.well_since = began
        self._beat_at = began

    def _falter(self) -> None:
        self.well_since = math.inf

    def sweep(self) -> None:
        """Now and then, delete rows that nobody needs any more."""
        workers = self._database.rows.workers
        if workers is not None and time.monotonic() - self._swept_at > SWEEP_EVERY:
            self._write("forgetting workers of old", lambda: workers.sweep(self._kept))
            self._swept_at = time.monotonic()

    def end(self) -> None:
        """Say that the worker has ended, if that takes no longer than :data:`PARTING`."""
        if self._beat_at == -math.inf:
            return
        with caught():  # whatever keeps it from that, it ends all the same, and is soon seen to be gone
            bounded(self._part, PARTING)

    def _part(self) -> None:
        workers = self._database.rows.workers
        if workers is not None:
            workers.ended(self._name, self._run_id)

    @memoized_property
    def _name(self) -> str:
        """As it stands in the rows of its tasks."""
        return name(self._told.worker) or ""

    def _row(self) -> dict[str, Any]:
        now, told = utc_now(), self._told
        # A clock that was set back since: tasks that begin now must not seem older than this run.
        self._started = min(self._started, now - timedelta(seconds=time.monotonic() - self._began))
        return {
            **self._identity,
            "date_started": self._started,
            "clock": now,
            "spooled": told.spooled(),
            "busy": told.busy(),
            "concurrency": told.concurrency(),
        }

    @memoized_property
    def _identity(self) -> dict[str, Any]:
        known = {"host": name(socket.gethostname()), "pid": os.getpid(), "app": name(as_text(self._told.app or ""))}
        return {"name": self._name, "run_id": self._run_id, **known, "versions": _versions(self._database.engine)}


def _versions(engine: Any) -> str:
    """Which releases run here, of what may matter for a result."""
    ours = ", ".join(f"{package} {version(package)}" for package in ("celery-sql-results", "celery", "SQLAlchemy"))
    driver = engine.dialect.loaded_dbapi
    of_driver = str(getattr(driver, "__version__", None) or getattr(driver, "sqlite_version", "")).partition(" ")[0]
    return f"{ours}, {driver.__name__} {of_driver}, Python {platform.python_version()}"[:255]
