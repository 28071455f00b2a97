"""The clock of all waits on one set of tables in this process, and the thread that reads their rows.

Each wait is due at times of its own. A look asks for what is due, for many waits in one query, and for nothing else.
What listens does so in another thread, and hands over ids: it can delay no look.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable
from queue import Empty, SimpleQueue

from celery import states
from celery.exceptions import SoftTimeLimitExceeded

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping
from celery_sql_results.writing import Outage

from .asking import Asking
from .awaited import Awaited
from .notifier import MakeNotifier, Notifier
from .schedule import OUTAGE_PAUSE, REST, Schedule
from .subscription import Row, Subscription

__all__ = ["Looker"]

logger = escaping(logging.getLogger(__name__))

#: Seconds that the threads stay at most when nobody waits, with their connections.
LINGER = 30.0
#: Seconds for which the thread steps aside when it has handed over rows. Going on at once, it would keep the
#: interpreter to itself, and those who have waited would wait for that as well.
COURTESY = 0.0001


class Looker:
    """Hands the rows of finished tasks to whoever awaits them.

    Args:
        asking: how rows are read.
        notifier: makes what listens, if anything can.
        passes: whether an error of the database passes by itself.
        first_pause: shortest pause between two looks, in seconds.
        last_pause: longest pause, where changes are not made known.
        idle_timeout: seconds that the threads stay when nobody waits; 0 is as long as they may.
        outage: is told of looks that fail, and of those that succeed afterwards.

    Attributes:
        looks: how many times the thread has asked for rows.
    """

    def __init__(
        self,
        asking: Asking,
        notifier: MakeNotifier | None,
        passes: Callable[[BaseException], bool],
        first_pause: float,
        last_pause: float,
        idle_timeout: float,
        outage: Outage,
    ) -> None:
        self._asking = asking
        self._make_notifier = notifier
        self._passes, self._outage = passes, outage
        self._bounds = first_pause, last_pause
        self._linger = min(idle_timeout or LINGER, LINGER)
        self._users: set[object] = set()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        #: Wakes the thread; with a wait that may be wanted no more. Unlike an event, it can be used as objects end.
        self._inbox: SimpleQueue[Subscription | None] = SimpleQueue()
        self._awaited = Awaited()
        self._schedule = Schedule(*self._bounds)
        self._thread: threading.Thread | None = None
        self._notifier: Notifier | None = None
        self._sleeps_until = -math.inf
        self._idle_since = time.monotonic()
        self.looks = 0

    # -- who needs it --------------------------------------------------------------------------------------------

    def join(self, user: object) -> None:
        """Stay ready for a user; see :meth:`leave`."""
        self._users.add(user)

    def leave(self, user: object) -> None:
        """End with the last user, as soon as nobody waits. Takes no lock: it is called as objects end."""
        self._users.discard(user)
        self._inbox.put(None)

    @property
    def is_used(self) -> bool:
        """Whether it stays ready for anybody."""
        return bool(self._users)

    @property
    def threads(self) -> list[threading.Thread]:
        """The threads that look and listen, if there are any."""
        found: tuple[object, ...] = (self._thread, self._notifier)
        return [thread for thread in found if isinstance(thread, threading.Thread)]

    @property
    def is_needed(self) -> bool:
        """Whether anybody waits just now."""
        return bool(self._awaited.waits)

    def awaited(self) -> list[str]:
        """The ids that are missing, once for each wait."""
        with self._lock:
            return [task_id for wait in self._awaited.waits for task_id in wait.missing]

    def is_told(self, task_ids: Iterable[str]) -> bool:
        """Whether changes of tasks are made known to those who wait for them."""
        with self._lock:
            return all(any(map(self._is_told, self._awaited.of(task_id))) for task_id in task_ids)

    # -- waits ---------------------------------------------------------------------------------------------------

    def look_once(self, wait: Subscription) -> None:
        """Hand a wait what is there."""
        wait.offer(self._asking.fetch(wait.task_ids))

    def begin(self, wait: Subscription) -> None:
        """Hand a wait what is there, in this thread, and then what comes, until it has ended.

        Raises:
            what keeps the database from answering; but what passes is only tried again.
        """
        with self._lock:
            if wait.has_ended:
                return
            self._schedule.begin(wait)
            is_announced = self._is_hopeful and self._asking.may_announce(wait)
            if is_announced:  # first, or a hint that comes at once would be for nobody
                self._awaited.add(wait)
        with caught() as failure:  # a driver may raise anything
            wait.offer(self._asking.announce([wait]) if is_announced else self._asking.fetch(wait.task_ids))
        if failure.error is not None and not self._passes(failure.error):
            raise failure.error
        if wait.missing:
            self._go_on(wait)
        elif wait.ends_itself:
            self.end(wait)

    def enlist(self, wait: Subscription) -> None:
        """:meth:`begin`, with all looks in the thread: nobody is kept here."""
        with self._lock:
            wait.looker = self
            self._schedule.begin(wait)
            self._schedule.plan_now(wait)
            wait.renewal = -math.inf
            self._awaited.add(wait)
            self._start()
            notifier = self._notifier
        self._inbox.put(None)
        if notifier is not None:
            notifier.wake()

    def _go_on(self, wait: Subscription) -> None:
        """The first look is over, and has not found everything."""
        with self._lock:
            if wait.has_ended:  # whoever sat through it has given up meanwhile
                self._awaited.keep(wait)
            else:
                self._awaited.add(wait)
                if not wait.is_announced:  # it may be worth it from now on
                    wait.renewal = -math.inf
                self._plan(wait)
            self._start()
            notifier, is_early = self._notifier, wait.due < self._sleeps_until
        if is_early:
            self._inbox.put(None)
        if notifier is not None:
            notifier.wake()

    def end(self, wait: Subscription) -> None:
        """Hand a wait nothing more. Nothing is asked for that: its rows of waiters go a little later, with others."""
        with self._lock:
            wait.has_ended = True
            self._awaited.remove(wait)
            self._schedule.drop(wait)
            if not self._awaited.waits:
                self._idle_since = time.monotonic()

    def check(self, wait: Subscription) -> None:
        """End a wait if nobody wants it any more. Takes no lock: it is called as objects end."""
        self._inbox.put(wait)

    # -- hints ---------------------------------------------------------------------------------------------------

    def heard(self, task_ids: Collection[str]) -> None:
        """Read the rows of those tasks that are missed here, in the thread that listens: that is the shortest way."""
        with self._lock:
            missed = self._awaited.told(task_ids)
        if not missed:
            return
        began = time.monotonic()
        with caught() as failure:  # who looks meets the same error, and tells whose it is
            if self._hand_over(self._asking.fetch(missed), are_told=True):
                return
        if failure.error is not None:
            self._hasten(wait for waits in missed.values() for wait in waits)
        time.sleep(min((time.monotonic() - began) * REST, self._bounds[1]))  # more hints gather meanwhile

    def changed(self) -> None:
        """Look soon for whatever is awaited."""
        with self._lock:
            self._schedule.changed()
        self._inbox.put(None)

    def tuned(self) -> None:
        """Look at once for whatever is awaited: what happened before was not made known."""
        with self._lock:
            waits = list(self._awaited.waits)
            if self._notifier is not None and self._notifier.hears:
                for wait in waits:  # those with rows as well: a server that has crashed forgot them
                    wait.renewal = -math.inf
        self._hasten(waits)

    def _hasten(self, waits: Iterable[Subscription]) -> None:
        with self._lock:
            self._schedule.hasten(waits)
        self._inbox.put(None)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():  # the system may have had none to spare
            self._thread = threading.Thread(target=self._run, name="celery-sql-results-look", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stops():
            with caught(SoftTimeLimitExceeded) as failure:  # the thread serves every wait: it outlives all
                self._turn()
            if failure.error is not None:
                logger.error("looking for results failed, it goes on", exc_info=failure.error)
                time.sleep(OUTAGE_PAUSE)

    def _stops(self) -> bool:
        """Whether nobody needs the thread any more."""
        with self._lock:
            lingers = self._users and time.monotonic() - self._idle_since < self._linger
            if self._awaited.waits or lingers:
                return False
            left, notifier = self._awaited.take_left(math.inf), self._notifier
            self._thread = self._notifier = None
        if notifier is not None:
            notifier.end()
        self._withdraw(left)
        return True

    def _turn(self) -> None:
        self._listen()
        self._sleep()
        with self._lock:
            waits = self._schedule.take()
            left = self._awaited.take_left(time.monotonic())
        self._look([wait for wait in waits if not self._is_dropped(wait)])
        self._withdraw(left)

    def _listen(self) -> None:
        if self._notifier is not None or self._make_notifier is None:
            return
        self._notifier = notifier = self._make_notifier(self, self._asking.channel)
        try:
            notifier.start()
        except RuntimeError:  # the system has no thread to spare; later, it may
            self._notifier = None

    def _sleep(self) -> None:
        with self._lock:
            ends = (self._schedule.next(), self._awaited.next or math.inf, self._idle_since + self._linger)
            self._sleeps_until = min(ends if not self._awaited.waits else ends[:2])
        if not self._awaited.waits and not self._users:
            return
        try:
            wait = self._inbox.get(timeout=min(max(self._sleeps_until - time.monotonic(), 0.0), LINGER))
            while True:
                if wait is not None:
                    self._is_dropped(wait)
                wait = self._inbox.get_nowait()
        except Empty:
            return
        finally:
            self._sleeps_until = -math.inf

    def _is_dropped(self, wait: Subscription) -> bool:
        if not wait.is_wanted:
            self.end(wait)
        return wait.has_ended

    def _look(self, waits: Collection[Subscription]) -> None:
        """Look for several waits in one query; where that fails, for each alone: its error is nobody else's."""
        if not waits:
            return
        began = time.monotonic()
        with self._lock:
            self._schedule.note(*waits)
        with caught() as failure:  # a driver may raise anything
            self._hand_over(self._asking.look(waits, self._is_hopeful))
        error = failure.error
        self.looks += 1
        self._schedule.spent += time.monotonic() - began
        if error is not None and not self._passes(error):
            self._tell(waits, error)
            return
        with self._lock:
            for wait in waits:
                if wait.has_ended:  # meanwhile: the look may have left rows for it
                    self._awaited.keep(wait)
                elif wait.missing:
                    self._plan(wait) if error is None else self._schedule.plan_again(wait)
        if error is not None:
            self._outage.failed(error, began)
            return
        self._outage.answered()
        for wait in waits:
            wait.looked_for()

    def _tell(self, waits: Collection[Subscription], error: BaseException) -> None:
        if len(waits) > 1:
            for wait in waits:
                self._look([wait])
            return
        for wait in waits:
            wait.fail(error)
            if wait.ends_itself:
                self.end(wait)

    def _plan(self, wait: Subscription) -> None:
        notifier = self._notifier
        self._schedule.plan(wait, self._is_told(wait), notifier is None or notifier.tells_which)

    def _is_told(self, wait: Subscription) -> bool:
        notifier = self._notifier
        return notifier is not None and notifier.hears and (wait.is_announced or not notifier.tells_which)

    # -- what is handed over, what is left -----------------------------------------------------------------------

    def _hand_over(self, rows: Collection[Row], are_told: bool = False) -> bool:
        """Offer rows to those who wait for them, and return whether any was finished."""
        with self._lock:
            offers = self._awaited.offers(rows)
        finished: set[str] = set()
        for wait, found in offers.items():
            finished.update(row["task_id"] for row in found if row["status"] in states.READY_STATES)
            if are_told:  # whoever tells of that has removed our row
                wait.left -= finished
            wait.offer(found)
            if wait.ends_itself and not wait.missing:
                self.end(wait)
        if rows and threading.current_thread() is self._thread:
            time.sleep(COURTESY)
        return bool(finished)

    @property
    def _is_hopeful(self) -> bool:
        return self._notifier is None or self._notifier.is_hopeful

    def _withdraw(self, task_ids: Collection[str]) -> None:
        """Take rows of waiters away. Whoever began to wait for one meanwhile leaves it once more."""
        if not task_ids:
            return
        self._asking.withdraw(task_ids)
        with self._lock:
            again = [wait for task_id in task_ids for wait in self._awaited.of(task_id)]
            for wait in again:
                wait.renewal = -math.inf
        if again:
            self._hasten(again)

    # -- forks ---------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """A database in a file must not be open while its process is forked: its locks belong to the process."""
        self._asking.in_use.acquire()
        if self._notifier is not None:
            self._notifier.before_fork()

    def after_fork(self) -> None:
        """The parent goes on."""
        self._asking.in_use.release()

    def after_fork_in_child(self) -> None:
        """Nobody waits yet; the thread and the connections are the parent's."""
        _left_to_parent.append((self._notifier, self._awaited))
        self._asking.begin()
        self._begin()


#: What was awaited when this process was forked. It is kept: the end of a connection would close the parent's as well.
_left_to_parent: list[object] = []
