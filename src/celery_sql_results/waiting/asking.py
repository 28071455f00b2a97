"""How rows are asked for, and rows of waiters left where writers find them."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext

from celery import states
from sqlalchemy.exc import DBAPIError, ProgrammingError, SQLAlchemyError

from celery_sql_results.foreign import escaping
from celery_sql_results.rows import TaskRows, WaiterRows

from .subscription import Row, Subscription

__all__ = ["Asking"]

logger = escaping(logging.getLogger(__name__))

#: Most ids of one wait that get a row of their own; more are polled in one query, which costs the writers nothing.
MOST_ROWS = 100
#: Seconds after which the rows of waiters are renewed, in a look: workers sweep what is older than a minute.
RENEWAL = 20.0
#: Seconds until it is tried again to leave rows, doubled each time, where the server can be read and takes none: it is
#: not the primary any more, or only our connection was lost. Each attempt on such a server lets go of it.
FIRST_PAUSE, LAST_PAUSE = 0.25, 5.0


class Asking:
    """What waits ask of the database.

    Args:
        tasks: where results are found.
        waiters: where rows of waiters are left, if the database can notify them.
    """

    def __init__(self, tasks: TaskRows, waiters: WaiterRows | None) -> None:
        self.tasks = tasks
        self.waiters = waiters
        self.begin()

    def begin(self) -> None:
        """In a process of its own."""
        self.channel = f"celery_{os.getpid()}_{uuid.uuid4().hex[:16]}"
        #: Whoever reads holds this where a child must not be forked meanwhile: it would inherit SQLite's own locks.
        self.in_use = threading.RLock()
        #: When rows of waiters may be left again (monotonic), and the pause until then.
        self._again, self._pause = -math.inf, 0.0

    def fetch(self, task_ids: Collection[str]) -> list[Row]:
        """The rows that tasks have."""
        with self._reading:
            return self.tasks.fetch_many(task_ids)

    @property
    def _reading(self) -> AbstractContextManager[object]:
        return self.in_use if self.tasks.impl.closes_before_fork else nullcontext()

    def look(self, waits: Collection[Subscription], is_hopeful: bool) -> list[Row]:
        """The rows that some waits miss; those of waiters are renewed in the same statement, where there is hope."""
        now = time.monotonic()
        renewed = {wait for wait in waits if wait.renewal <= now and is_hopeful and self.may_announce(wait)}
        others = {task_id for wait in waits if wait not in renewed for task_id in wait.missing - wait.bare}
        bare = {task_id for wait in waits if wait.bare for task_id in wait.missing & wait.bare}
        rows = self.announce(renewed) if renewed else []
        rows = [*rows, *self.fetch(others)] if others else rows
        return [*rows, *self._states(bare)] if bare else rows

    def _states(self, task_ids: Collection[str]) -> list[Row]:
        """Of tasks whose values nobody wants."""
        with self._reading:
            found = self.tasks.fetch_states(task_ids)
        return [{"task_id": task_id, "status": status} for task_id, status in found.items()]

    def may_announce(self, wait: Subscription) -> bool:
        """Whether :meth:`announce` is worth its price."""
        is_small = len(wait.task_ids) - len(wait.bare) <= MOST_ROWS and not wait.missing <= wait.bare
        return self.waiters is not None and is_small and time.monotonic() >= self._again

    def announce(self, waits: Collection[Subscription]) -> list[Row]:
        """The rows that waits miss. From now on, the writers of those that are not finished will notify us.

        If the server takes no rows of ours now, they are only read.
        """
        task_ids = {task_id for wait in waits for task_id in wait.missing - wait.bare}
        if self.waiters is None:
            return self.fetch(task_ids)
        try:
            rows = self.waiters.await_many(task_ids, self.channel)
        except ProgrammingError as error:
            rows = self.fetch(task_ids)  # if that fails as well, it was something else
            logger.warning("this role may not leave rows of waiters, so results are polled: %s", error.orig)
            self.waiters = None
            return rows
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return self._only_read(waits, task_ids)
        self._pause = 0.0
        finished = {row["task_id"] for row in rows if row["status"] in states.READY_STATES}
        for wait in waits:
            wait.left |= wait.missing - wait.bare - finished
            wait.is_announced, wait.renewal = True, time.monotonic() + RENEWAL
        return rows

    def _only_read(self, waits: Collection[Subscription], task_ids: Collection[str]) -> list[Row]:
        rows = self.fetch(task_ids)  # if that fails as well, the database is away
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LAST_PAUSE)
        self._again = time.monotonic() + self._pause
        for wait in waits:
            wait.is_announced, wait.renewal = False, -math.inf
        return rows

    def withdraw(self, task_ids: Collection[str]) -> None:
        """Take the rows of :meth:`announce` away. Where that fails, they are swept by a worker."""
        if self.waiters is None:
            return
        try:
            self.waiters.await_no_more(task_ids, self.channel)
        except SQLAlchemyError:
            logger.debug("could not withdraw the wait for %d tasks", len(task_ids), exc_info=True)
