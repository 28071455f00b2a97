"""Watch a counter of changes, where the database is a file: to ask whether anybody has written costs microseconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from celery.exceptions import SoftTimeLimitExceeded

from celery_sql_results.boundaries import caught
from celery_sql_results.dialects import ChangeCounter

from .notifier import Ears

__all__ = ["ChangeNotifier"]

#: Seconds between two looks at the counter; it may be asked often.
FIRST_TICK, LAST_TICK = 0.0003, 0.02
#: The pause between two ticks is this part of the time since the youngest wait began, or since the last change.
TICK_FRACTION = 0.005
#: Seconds before a counter that has failed is made anew.
PAUSE = 0.5


class ChangeNotifier(threading.Thread):
    """Asks a counter, in this thread, for as long as somebody waits.

    Args:
        count: makes the counter.
        in_use: held while the file is read: not in the middle of a fork.
        ears: who is told.
    """

    tells_which = False
    is_hopeful = False

    def __init__(self, count: Callable[[], ChangeCounter], in_use: AbstractContextManager[object], ears: Ears) -> None:
        super().__init__(name="celery-sql-results-listen", daemon=True)
        self.hears = False
        self._count, self._in_use, self._ears = count, in_use, ears
        self._counter: ChangeCounter | None = None
        self._woken = threading.Event()
        self._has_ended = False
        self._since = time.monotonic()

    def run(self) -> None:
        """Watch, until it is ended."""
        while not self._has_ended:
            with caught(SoftTimeLimitExceeded) as failure:  # the file may be locked, or gone
                self._turn()
            if failure.error is not None:
                self._failed()
        self.before_fork()

    def _turn(self) -> None:
        if self._has_changed():
            self._since = time.monotonic()
            self._ears.changed()
        waited = time.monotonic() - self._since
        tick = min(max(waited * TICK_FRACTION, FIRST_TICK), LAST_TICK)
        if self._woken.wait(tick if self._ears.is_needed else None):
            self._woken.clear()
            self._since = time.monotonic()

    def _has_changed(self) -> bool:
        """Whether anybody has written; true for a counter that is new, since nobody knows what was before."""
        with self._in_use:
            if self._counter is not None:
                return self._counter.has_changed()
            self._counter = self._count()
        self.hears = True
        return True

    def _failed(self) -> None:
        self.hears = False
        self.before_fork()
        self._ears.tuned()
        time.sleep(PAUSE)

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        self._has_ended = True
        self._woken.set()

    def before_fork(self) -> None:
        """A database in a file must not be open while its process is forked: its locks belong to the process."""
        with self._in_use:
            counter, self._counter = self._counter, None
            if counter is not None:
                counter.close()

    def after_fork(self) -> None:
        """The next look makes a counter."""
