"""What a worker does for its results now and then, in threads of its main process.

In one it stores what waits in the spool, and ends chords that nobody else does; in the other it says that it is alive.
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

from .alive import HEARTBEAT, Heart

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
        heart: makes what says that a worker is alive, of which Celery's signal has brought the consumer.
        beside: what else is to be done by a worker that has such a heart.
    """

    tasks: Mapping[str, Callable[[], object]]
    interval: float
    is_away: Callable[[BaseException], bool]
    still: AbstractContextManager[Any]
    at_start: Callable[[], object]
    heart: Callable[[Any], Heart] | None = None
    beside: Callable[[Heart], Mapping[str, Callable[[], object]]] | None = None


class Upkeep(threading.Thread):
    """Does some work at once and every few seconds, whatever it raises, until it is ended."""

    def __init__(self, work: Work, name: str = "upkeep") -> None:
        super().__init__(name=f"celery-sql-results-{name}", daemon=True)
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


class Running(NamedTuple):
    """What is done beside the tasks of one worker."""

    threads: tuple[Upkeep, ...]
    heart: Heart | None

    @classmethod
    def of(cls, work: Work, consumer: Any) -> Running:
        """Begin it."""
        heart = work.heart and getattr(consumer, "hostname", None) and work.heart(consumer)
        beside = work.beside(heart) if heart and work.beside else {}
        threads = [Upkeep(work._replace(tasks={**work.tasks, **beside}))]
        if heart:
            threads.append(Upkeep(work._replace(tasks=heart.tasks, interval=HEARTBEAT, at_start=bool), "alive"))
        for thread in threads:
            thread.start()
        return cls(tuple(threads), heart or None)

    def end(self) -> None:
        """End it, and wait for nothing for long."""
        for thread in self.threads:
            thread.end()
        if self.heart:
            self.heart.end()


#: By the app and the name of the worker.
_running: dict[tuple[int, object], Running] = {}


def _key(sender: Any) -> tuple[int, object]:
    return id(sender.app), getattr(sender, "hostname", None)


def _begin(sender: Any = None, **_: Any) -> None:
    """A worker is ready; ``sender`` is its consumer."""
    work = getattr(sender.app.backend, "upkeep", None)  # it may be a backend of any kind
    if isinstance(work, Work) and work.interval:
        _running[_key(sender)] = Running.of(work, sender)


def _end(sender: Any = None, **_: Any) -> None:
    """A worker has ended; ``sender`` is the worker."""
    running = _running.pop(_key(sender), None)
    if running is not None:
        running.end()


worker_ready.connect(_begin)
worker_shutdown.connect(_end)
