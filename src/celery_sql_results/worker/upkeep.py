"""What a worker does for its results now and then, in a thread of its main process.

It stores what waits in the spool, and ends chords that nobody else does.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_ready, worker_shutdown

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping
from celery_sql_results.writing import describe

__all__ = ["Upkeep", "Work"]

logger = escaping(logging.getLogger(__name__))


class Work(NamedTuple):
    """What is to be done for the results of one backend.

    Attributes:
        tasks: what to do, by what the log calls it.
        interval: seconds between two rounds; jittered, so that a fleet does not come all at once. 0 is never.
        is_away: whether an error is that of a database that is away, of which somebody else tells then.
        still: held during each task: what a fork waits for, if need be.
        at_start: what to do first, until it has succeeded once.
    """

    tasks: Mapping[str, Callable[[], object]]
    interval: float
    is_away: Callable[[BaseException], bool]
    still: AbstractContextManager[Any]
    at_start: Callable[[], object]


class Upkeep(threading.Thread):
    """Does some work at once and every few seconds, whatever it raises, until it is ended."""

    def __init__(self, work: Work) -> None:
        super().__init__(name="celery-sql-results-upkeep", daemon=True)
        self._work = work
        self._ended = threading.Event()
        self._failing: dict[str, type[BaseException]] = {}

    def run(self) -> None:
        """Do the rounds."""
        has_begun = False
        while not self._ended.is_set():
            has_begun = has_begun or self._attempt("looking at the result database", self._work.at_start)
            for name, task in self._work.tasks.items():
                self._attempt(name, task)
            self._ended.wait(self._work.interval * random.uniform(0.75, 1.25))  # noqa: S311 - jitter

    def end(self) -> None:
        """Begin no further round."""
        self._ended.set()

    def _attempt(self, name: str, task: Callable[[], object]) -> bool:
        with caught(SoftTimeLimitExceeded) as failure, self._work.still:  # the next round may find it mended
            task()
        error = failure.error
        if error is None:
            self._failing.pop(name, None)
            return True
        if self._work.is_away(error):
            return False
        if self._failing.get(name) is not type(error):  # once, not in each round
            logger.warning("%s failed (%s), it is tried again every %g s", name, describe(error), self._work.interval)
        self._failing[name] = type(error)
        return False


_running: dict[int, Upkeep] = {}


def _begin(sender: Any = None, **_: Any) -> None:
    """A worker is ready; ``sender`` is its consumer."""
    work = getattr(sender.app.backend, "upkeep", None)  # it may be a backend of any kind
    if isinstance(work, Work) and work.interval:
        upkeep = _running[id(sender.app)] = Upkeep(work)
        upkeep.start()


def _end(sender: Any = None, **_: Any) -> None:
    """A worker has ended; ``sender`` is the worker."""
    upkeep = _running.pop(id(sender.app), None)
    if upkeep is not None:
        upkeep.end()


worker_ready.connect(_begin)
worker_shutdown.connect(_end)
