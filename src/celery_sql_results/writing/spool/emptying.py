"""When what waits in the spool is stored: in a thread of its own, so that nobody's call has to wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from celery.exceptions import SoftTimeLimitExceeded

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping
from celery_sql_results.writing.described import describe

__all__ = ["Emptier"]

logger = escaping(logging.getLogger(__name__))

#: Seconds between two attempts while the database cannot be reached, doubled each time.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0


class Emptier:
    """Replays the spool from when it is woken until it is empty.

    Args:
        replay: stores what waits, and returns whether something may be left.
        is_away: whether an error is that of a database that is away, of which somebody else tells then.
    """

    def __init__(self, replay: Callable[[], bool], is_away: Callable[[BaseException], bool]) -> None:
        self._replay = replay
        self._is_away = is_away
        self._thread: threading.Thread | None = None
        self._wanted = self._at_once = self._told = False
        self._poked = threading.Event()
        #: Whether something waits for the database to be back.
        self.is_waiting = False

    def wake(self, at_once: bool = False) -> None:
        """Something waits in the spool; ``at_once`` if the database is known to be there."""
        self._wanted = True
        self._at_once = at_once
        if self._thread is None or not self._thread.is_alive():  # in a forked child the parent's is not
            self._thread = threading.Thread(target=self._run, name="celery-sql-results-spool", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the system has none to spare: the next operation that succeeds asks again
                self._thread, self.is_waiting = None, True

    def poke(self) -> None:
        """The database has just answered: do not wait for the pause to end."""
        if self.is_waiting:
            self.is_waiting = False
            self._poked.set()
            self.wake(at_once=True)

    def _run(self) -> None:
        pause, poked = FIRST_PAUSE, False
        if not self._at_once:
            self._rest(pause)
        while self._wanted:
            self._wanted = False
            is_away = self._attempt()
            if self._wanted:
                poked = self._rest(pause, pokable=is_away and not poked)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._thread = None  # before the last look: whoever wakes from now on begins a new one

    def _attempt(self) -> bool:
        """Replay; whether the database is away."""
        is_left = True
        with caught(SoftTimeLimitExceeded) as failure:  # the spool or a driver may raise anything; it is tried again
            is_left = self._replay()
        if is_left:
            self._wanted = True
        error = failure.error
        is_away = error is not None and self._is_away(error)
        if error and not is_away and not self._told:
            logger.warning("the spool could not be emptied yet (%s), it is tried again", describe(error))
        self._told = error is not None and not is_away
        return is_away

    def _rest(self, pause: float, pokable: bool = True) -> bool:
        """Sleep; whether that was cut short. What fails for another reason than an outage is not tried faster."""
        self._poked.clear()
        self.is_waiting = pokable
        poked = self._poked.wait(pause)
        self.is_waiting = False
        return poked
