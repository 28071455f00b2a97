"""Connections that nobody uses are let go: one thread of the process closes them, while there are any.

Nobody calls a child of a worker that has no task, so something has to wake up in it. Giving a connection back costs no
more for that: the thread is told of a pool once, and finds out by itself when the time of a connection is up.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol
from weakref import WeakSet

from celery_sql_results.boundaries import caught

__all__ = ["watch"]

logger = logging.getLogger(__name__)

#: Seconds that a fork waits for a connection that is being closed: a child must not inherit it half closed.
FORK_PATIENCE = 5.0
#: Seconds that the thread sleeps at most: a system's clocks take no arbitrary time-out.
LONGEST_SLEEP = 3600.0


class Watched(Protocol):
    """A pool with idle connections.

    Attributes:
        is_watched: whether it need not be told of again.
        idle_timeout: seconds.
    """

    is_watched: bool
    idle_timeout: float

    def close_idle(self) -> float | None:
        """Close what nobody has used for the timeout.

        Return when to look again (monotonic), or ``None`` if nothing is open.
        """


class _Watch:
    """The pools that are watched, and the thread that does. It keeps no pool alive."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._after_fork_in_child
        )

    def _begin(self) -> None:
        #: Taken again by a thread that is interrupted, as it holds it, by the end of an object with a connection.
        self._lock = threading.RLock()
        self._pools: WeakSet[Watched] = WeakSet()
        self._inbox: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._forks = 0

    def add(self, pool: Watched) -> None:
        """Watch a pool until nothing of it is open. If the system has no thread to spare, its next use tries again."""
        with self._lock, suppress(RuntimeError):
            self._pools.add(pool)
            self._start()
            pool.is_watched = True
        self._inbox.put(None)

    def _start(self) -> None:
        if self._thread is None and not self._forks:
            thread = threading.Thread(target=self._run, name="celery-sql-results-idle", daemon=True)
            thread.start()
            self._thread = thread

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (until := self._turn()) is not None:
            with suppress(Empty):
                self._inbox.get(timeout=min(max(until - time.monotonic(), 0.0), LONGEST_SLEEP))

    def _turn(self) -> float | None:
        """Look at each pool; when to do so again, or ``None`` if this is the end of the thread."""
        with self._lock:
            pools = [] if self._forks else list(self._pools)
            if not pools:
                self._thread = None
                return None
        return min(map(self._look, pools))

    def _look(self, pool: Watched) -> float:
        pool.is_watched = False  # first, or what is given back just now would be overlooked
        until: float | None = time.monotonic() + pool.idle_timeout
        with caught() as failure:
            until = pool.close_idle()
        if failure.error is not None:  # a listener of somebody's
            logger.warning("an idle connection could not be closed: %s", type(failure.error).__name__)
        with self._lock:
            if until is not None:
                pool.is_watched = True
            elif not pool.is_watched:
                self._pools.discard(pool)
        return time.monotonic() if until is None else until

    # -- forks ---------------------------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        """A child inherits nothing that is half closed, and its parent is no process of threads for this one."""
        with self._lock:
            self._forks += 1
            thread = self._thread
        self._inbox.put(None)
        if thread is not None:
            thread.join(FORK_PATIENCE)

    def _after_fork(self) -> None:
        with self._lock, suppress(RuntimeError):  # the next pool tries again
            self._forks -= 1
            if self._pools:
                self._start()

    def _after_fork_in_child(self) -> None:
        for pool in list(self._pools):
            pool.is_watched = False
        self._begin()


_watch = _Watch()
watch = _watch.add
