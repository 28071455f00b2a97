"""States that are no outcome, such as STARTED: they are stored if that is easy, and never hold a task up."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping

from .bounded import Late, bounded
from .described import describe
from .entry import Entry
from .outage import LEFT_OUT, NO_MORE, Outage

__all__ = ["Mentions"]

logger = escaping(logging.getLogger(__name__))

#: Seconds that the one attempt may take. A database that is well needs thousandths of it.
LONGEST = 5.0
#: Seconds for which none is made while an earlier one hangs.
HANGING = 60.0


class Mentions:
    """Stores what a task says of itself while it runs: one attempt, within bounds, and what fails is left out.

    Args:
        put: stores an entry, or what stands for it, or raises.
        cannot_hang: whether the database is in this process: then another thread may have to wait for this one.
        outage: is told of what fails, and of what succeeds afterwards.
        passes: whether an error is that of a database that is away.
    """

    def __init__(
        self,
        put: Callable[[Entry], None],
        cannot_hang: Callable[[], bool],
        outage: Outage,
        passes: Callable[[BaseException], bool],
    ) -> None:
        self._put = put
        self._cannot_hang = cannot_hang
        self._outage, self._passes = outage, passes
        #: When each attempt that is under way should have ended, by the monotonic clock.
        self._ends: dict[tuple[int, object], float] = {}

    def put(self, entry: Entry) -> None:
        """Store ``entry``, or leave it out. Of an outage the log tells as ever; of other failures, of the first.

        Raises:
            celery.exceptions.SoftTimeLimitExceeded: the task has not ended, so it is its own to notice.
        """
        if self._is_hanging():
            return
        began = time.monotonic()
        with caught() as failure:  # a driver may raise anything, and the task runs on
            if self._cannot_hang():
                self._put(entry)
            else:
                bounded(lambda: self._attempt(entry), LONGEST)
        if failure.error:
            self._tell(entry, failure.error, began)
        else:
            self._outage.answered(writes=True)

    def _is_hanging(self) -> bool:
        now, here = time.monotonic(), os.getpid()  # a forked child has none of the attempts of its parent
        return any(end < now < end + HANGING for (process, _), end in list(self._ends.items()) if process == here)

    def _attempt(self, entry: Entry) -> None:
        token = os.getpid(), object()
        self._ends[token] = time.monotonic() + LONGEST
        try:
            self._put(entry)
        finally:
            del self._ends[token]

    def _tell(self, entry: Entry, error: BaseException, began: float) -> None:
        if isinstance(error, Late):
            self._outage.failed(Late(f"not done within {LONGEST:g} s"), began, writes=True)
        elif self._passes(error):
            self._outage.failed(error, began, writes=True)
        elif self._outage.is_first(LEFT_OUT):
            logger.warning("%s failed (%s): left out. %s", entry, describe(error), NO_MORE)
