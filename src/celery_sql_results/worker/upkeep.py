"""What a worker does for its results now and then, in a thread of its main process.

It stores what waits in the spool, and ends chords that nobody else does.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_ready, worker_shutdown
from celery.utils.log import get_logger

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping
from celery_sql_results.writing import describe, still

__all__ = ["Upkeep"]

logger = escaping(get_logger(__name__))


class Upkeep(threading.Thread):
    """Does the ``tasks`` at once and every ``interval`` seconds, whatever they raise, until it is ended.

    Args:
        tasks: what to do, by what the log calls it.
        interval: seconds between two rounds; jittered, so that a fleet does not come all at once.
        still: held during each task: what a fork waits for, if need be.
    """

    def __init__(
        self, tasks: Mapping[str, Callable[[], object]], interval: float, still: AbstractContextManager[Any]
    ) -> None:
        super().__init__(name="celery-sql-results-upkeep", daemon=True)
        self._tasks = tasks
        self._interval = interval
        self._still = still
        self._ended = threading.Event()
        self._failing: dict[str, type[BaseException]] = {}

    def run(self) -> None:
        """Do the rounds."""
        while not self._ended.is_set():
            for name, task in self._tasks.items():
                self._attempt(name, task)
            self._ended.wait(self._interval * random.uniform(0.75, 1.25))  # noqa: S311 - jitter

    def end(self) -> None:
        """Begin no further round."""
        self._ended.set()

    def _attempt(self, name: str, task: Callable[[], object]) -> None:
        with caught(SoftTimeLimitExceeded) as failure, self._still:  # the next round may find it mended
            task()
        error = failure.error
        if error is None:
            self._failing.pop(name, None)
            return
        if self._failing.get(name) is not type(error):  # once for each outage, not in each round
            logger.warning("%s failed (%s), it is tried again every %g s", name, describe(error), self._interval)
        self._failing[name] = type(error)


_running: dict[int, Upkeep] = {}


def _begin(sender: Any = None, **_: Any) -> None:
    """A worker is ready; ``sender`` is its consumer."""
    backend = sender.app.backend
    tasks = getattr(backend, "upkeep_tasks", None)  # it may be a backend of any kind
    if tasks is None:
        return
    if backend.spooled:
        logger.warning("%d results wait in the spool %s", backend.spooled, backend.spool.path)
    if backend.settings.upkeep_interval:
        held = still if backend.database.impl.closes_before_fork else nullcontext()
        upkeep = _running[id(sender.app)] = Upkeep(tasks, backend.settings.upkeep_interval, held)
        upkeep.start()


def _end(sender: Any = None, **_: Any) -> None:
    """A worker has ended; ``sender`` is the worker."""
    upkeep = _running.pop(id(sender.app), None)
    if upkeep is not None:
        upkeep.end()


worker_ready.connect(_begin)
worker_shutdown.connect(_end)
