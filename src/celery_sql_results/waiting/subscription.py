"""One wait: what it misses, what came for it, and how whoever waits learns of it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from celery import states

from celery_sql_results.foreign import escaping

__all__ = ["Row", "Subscription", "Watch"]

logger = escaping(logging.getLogger(__name__))
Row = Mapping[str, Any]


class Subscription:
    """A wait that somebody sits through: the ids that it misses, and the rows that came for it.

    What a thread that looks has found is no longer missing, but not there for the one that waits before it is taken.

    Attributes:
        missing: the ids that no finished row was found for.
        untaken: how many finished rows are still to be taken.
        left: the ids for which a row of a waiter may be there.
        is_announced: whether each of its ids has such a row, so that its changes are made known.
        bare: the ids of which only the state counts: their values are not read, and their writers notify nobody.
        looker: what looks for it.
        ends_itself: whether nobody sits through it, so that whoever finds the last of it ends it.
    """

    ends_itself = False

    def __init__(
        self,
        task_ids: Iterable[str],
        ready_states: frozenset[str],
        every_state: bool,
        bare: frozenset[str] = frozenset(),
    ) -> None:
        self.task_ids, self.bare = frozenset(task_ids), bare
        self.missing = set(self.task_ids)
        self.untaken = len(self.missing)
        self.left: set[str] = set()
        self.is_announced = self.has_ended = False
        self.looker: Any = None
        self._ready_states = ready_states
        self._every_state = every_state
        self._seen: dict[str, tuple[object, ...]] = {}
        self._rows: deque[Row] = deque()
        self._error: BaseException | None = None
        self._event = threading.Event()
        # The rest is kept by whoever looks; times are monotonic, in seconds.
        self.since = self.looked = time.monotonic()
        self.due, self.pause = math.inf, 0.0
        #: When its rows of waiters are to be renewed.
        self.renewal = math.inf
        #: What looks had taken in all at its last look, and what they took between its last two.
        self.spent, self.cost = 0.0, 0.0
        #: How many ids were missing then, and how long the database rests before it is looked at for a change.
        self.missed, self.rest = len(self.missing), 0.0
        #: How many changes of the database were known when its last look began.
        self.changes = 0

    def offer(self, rows: Iterable[Row]) -> None:
        """Take rows that are news: of a finished state, or any change if the wait asks for every state."""
        news = [row for row in rows if self._is_news(row)]
        if news:
            self._rows += news
            self._arrived()

    def _is_news(self, row: Row) -> bool:
        task_id, status = row["task_id"], row["status"]
        if task_id not in self.missing or ("result" not in row and task_id not in self.bare):
            return False
        if status in self._ready_states:
            try:
                self.missing.remove(task_id)
            except KeyError:  # the other thread that looks was quicker
                return False
            return True
        news = (status, row.get("result"), row.get("traceback"))
        if not self._every_state or self._seen.get(task_id) == news:
            return False
        self._seen[task_id] = news
        return True

    def looked_for(self) -> None:
        """A look for it is over."""

    def fail(self, error: BaseException) -> None:
        """Let whoever waits know that there is no use in waiting."""
        self._error = error
        self._arrived()

    def _arrived(self) -> None:
        """Something has come; called in the thread that has found it."""
        if not self._event.is_set():  # setting takes a lock, and a thousand rows may come at once
            self._event.set()

    def take(self, timeout: float | None) -> Iterator[Row]:
        """Wait up to ``timeout`` seconds for rows and yield those that came.

        Raises:
            what :meth:`fail` was told.
        """
        self._event.wait(timeout)
        self._event.clear()
        if self._error is not None:
            raise self._error
        while self._rows:
            row = self._rows.popleft()
            self.untaken -= row["status"] in self._ready_states
            yield row

    @property
    def is_wanted(self) -> bool:
        """Whether anybody would still take what comes."""
        return True


class Watch(Subscription):
    """A wait that nobody sits through: each finished row is handed to a callback, in the thread that has found it.

    Args:
        task_ids: what is awaited.
        callback: gets each finished row.
        is_wanted: tells whether there is still somebody to be called back.
    """

    ends_itself = True

    def __init__(
        self, task_ids: Iterable[str], callback: Callable[[Row], object], is_wanted: Callable[[], bool]
    ) -> None:
        super().__init__(task_ids, states.READY_STATES, every_state=False)
        self._callback = callback
        self._is_wanted = is_wanted

    @property
    def is_wanted(self) -> bool:
        return self._is_wanted()

    def _arrived(self) -> None:
        if self._error is not None:  # nobody is there to be told
            logger.error("nobody will be called back, looking for results has failed: %s", self._error)
            return
        while self._rows:
            try:
                row = self._rows.popleft()
            except IndexError:  # another thread was quicker
                return
            self._callback(row)
