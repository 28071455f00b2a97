"""What is awaited in this process, and the thread that looks for it.

However many results are awaited, by however many threads, one thread asks for all of them in one query. It begins with
the first wait that does not find its results ready, and ends when nobody has waited for a while.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from celery import states
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results.boundaries import caught, undone

from .notifier import Notifier, Row

__all__ = ["Consumer", "Subscription"]

logger = get_logger(__name__)

#: A pause between two looks is this part of the age of the youngest wait: what was awaited for a second is known 50 ms
#: late at most, and the looks are few, because their number grows with the logarithm of the time.
FRACTION = 0.05
#: Where changes are made known, looks are for the one that was missed, or that Celery's own backend wrote without a
#: word: a quarter of the age later, and a second at most.
SAFETY_FRACTION, FIRST_SAFETY, LAST_SAFETY = 0.25, 0.01, 1.0
#: A look that takes long is not repeated at once: the database rests this many times as long.
REST = 2.0
#: Seconds that the thread stays when nobody waits, with its connection.
LINGER = 30.0
#: Seconds for which the thread steps aside when it has handed over rows. Going on at once, it would keep the
#: interpreter to itself, and those who have waited would wait for that as well.
COURTESY = 0.0001
#: Seconds between two looks while the database cannot be reached.
OUTAGE_PAUSE = 0.5


class Subscription:
    """One wait: the ids that it still misses, the rows that came for it, and how many finished ones nobody took yet.

    What a thread that looks has found is no longer missing, but not there for the one that waits before it is taken.
    """

    def __init__(self, task_ids: Iterable[str], ready_states: frozenset[str], every_state: bool) -> None:
        self.task_ids = frozenset(task_ids)
        self.missing = set(self.task_ids)
        self.untaken = len(self.missing)
        self.since = time.monotonic()
        self._ready_states = ready_states
        self._every_state = every_state
        self._seen: dict[str, tuple[object, ...]] = {}
        self._rows: deque[Row] = deque()
        self._error: BaseException | None = None
        self._arrived = threading.Event()

    def offer(self, row: Row) -> None:
        """Take a row if it is news: a finished state, or any change if the wait asks for every state."""
        task_id, status = row["task_id"], row["status"]
        if task_id not in self.missing:
            return
        if status in self._ready_states:
            try:
                self.missing.remove(task_id)
            except KeyError:  # the other thread that looks was quicker
                return
        else:
            news = (status, row["result"], row["traceback"])
            if not self._every_state or self._seen.get(task_id) == news:
                return
            self._seen[task_id] = news
        self._deliver(row)

    def _deliver(self, row: Row) -> None:
        self._rows.append(row)
        if not self._arrived.is_set():  # setting takes a lock, and a thousand rows may come at once
            self._arrived.set()

    def fail(self, error: BaseException) -> None:
        """Let whoever waits know that there is no use in waiting."""
        self._error = error
        self._arrived.set()

    def take(self, timeout: float | None) -> Iterator[Row]:
        """Wait up to ``timeout`` seconds for rows and yield those that came."""
        self._arrived.wait(timeout)
        self._arrived.clear()
        if self._error is not None:
            raise self._error
        while self._rows:
            row = self._rows.popleft()
            self.untaken -= row["status"] in self._ready_states
            yield row


class _Watch(Subscription):
    """A wait that nobody sits through: each finished row is handed to a callback."""

    def __init__(self, task_ids: Iterable[str], callback: Callable[[Row], object]) -> None:
        super().__init__(task_ids, states.READY_STATES, every_state=False)
        self._deliver = callback  # type: ignore[assignment,method-assign]

    def fail(self, error: BaseException) -> None:
        """Nobody is there to be told, so the log is, once."""
        if self._error is None:
            logger.error("nobody will be called back, looking for results has failed: %s", error)
        super().fail(error)


class Consumer:
    """Hands the rows of finished tasks to whoever awaits them.

    Args:
        notifier: the way to wait.
        is_transient: whether an error of the database passes by itself.
        first_pause: shortest pause between two looks, in seconds.
        last_pause: longest pause, where changes are not made known.
    """

    def __init__(
        self,
        notifier: Notifier,
        is_transient: Callable[[BaseException], bool],
        first_pause: float,
        last_pause: float,
    ) -> None:
        self._notifier = notifier
        self._is_transient = is_transient
        self._first_pause = first_pause
        self._last_pause = last_pause
        self._forget_all()
        me = weakref.ref(self)
        os.register_at_fork(
            before=partial(_before_fork, me),
            after_in_parent=partial(_after_fork, me, in_child=False),
            after_in_child=partial(_after_fork, me, in_child=True),
        )

    def _forget_all(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self._thread: threading.Thread | None = None
        self._looked, self._look_took = 0.0, 0.0
        self._reachable = True

    @contextmanager
    def subscribe(
        self, task_ids: Iterable[str], ready_states: frozenset[str] = states.READY_STATES, every_state: bool = False
    ) -> Iterator[Subscription]:
        """A wait for tasks, for the length of the block; what is ready is there when the block begins."""
        subscription = Subscription(task_ids, ready_states, every_state)
        try:
            self._begin(subscription)
            if subscription.missing and threading.current_thread() is self._thread:
                raise RuntimeError("a callback of then() may not wait: it runs in the thread that looks for results")
            yield subscription
        finally:
            self._end(subscription)

    def watch(self, task_ids: Iterable[str], callback: Callable[[Row], object]) -> None:
        """Hand the row of each task to ``callback`` when it is finished: now, or later in the thread that looks."""
        watch = _Watch(task_ids, callback)
        with undone(lambda: self._end(watch)):  # nobody will end what did not begin
            self._begin(watch)

    def _begin(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.add(subscription)
        self._first_look(subscription)
        if subscription.missing:
            self._wake_thread()
        elif isinstance(subscription, _Watch):
            self._end(subscription)

    def _first_look(self, subscription: Subscription) -> None:
        """In the caller's own thread. A database that is away for a moment is looked for by the other thread."""
        try:
            rows = self._notifier.add(subscription.task_ids)
        except SQLAlchemyError as error:
            if not self._is_transient(error):
                raise
            return
        for row in rows:
            subscription.offer(row)

    def _end(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)
            gone = subscription.task_ids - self._awaited()
        self._notifier.remove(gone, gone & subscription.missing)

    def _awaited(self) -> set[str]:
        return set().union(*(subscription.missing for subscription in self._subscriptions))

    # -- the thread ----------------------------------------------------------------------------------------------

    def _wake_thread(self) -> None:
        """Start the thread, or make it think anew how long to pause."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # the system may have had none to spare
                self._thread = threading.Thread(target=self._run, name="celery-sql-results", daemon=True)
                self._thread.start()
        self._notifier.interrupt()

    def _run(self) -> None:
        idle_since = time.monotonic()
        while True:
            if self._snapshot():
                idle_since = time.monotonic()
            elif self._stops(idle_since):
                return
            with caught(SoftTimeLimitExceeded) as failure:  # the thread serves every wait: it outlives all
                self._turn()
            if failure.error:
                self._failed(failure.error)

    def _stops(self, idle_since: float) -> bool:
        """Whether nobody has waited for so long that the thread ends now."""
        with self._lock:
            if self._subscriptions or time.monotonic() - idle_since < LINGER:
                return False
            self._notifier.close()  # before the next thread may open it again
            self._thread = None
        return True

    def _turn(self) -> None:
        """Wait for a hint, or for the pause to end, and look."""
        hinted = self._notifier.wait(self._pause())
        awaited = self._snapshot()
        wanted = awaited if hinted is None else awaited.intersection(hinted)
        if wanted:
            self._look(wanted)

    def _failed(self, error: BaseException) -> None:
        """Keep looking through an outage, and say so once; let every wait know of an error that does not pass."""
        if not self._is_transient(error):
            with self._lock:
                for subscription in self._subscriptions:
                    subscription.fail(error)
        elif self._reachable:
            self._reachable = False
            logger.warning("the result database cannot be reached, waiting goes on: %s", type(error).__name__)
        time.sleep(OUTAGE_PAUSE)

    def _snapshot(self) -> set[str]:
        with self._lock:
            return self._awaited()

    def _pause(self) -> float:
        """Seconds until the next look: few for a young wait, more as it ages."""
        with self._lock:
            begun = [wait.since for wait in self._subscriptions if wait.missing]
            awaited = self._awaited()
        if not begun:
            return LINGER
        now = time.monotonic()
        age = now - max(begun)
        if self._notifier.tells(awaited):
            pause = min(max(age * SAFETY_FRACTION, FIRST_SAFETY), LAST_SAFETY)
        else:
            pause = min(max(age * FRACTION, self._first_pause, self._look_took * REST), self._last_pause)
        # Each wait begins with a look of its own: the pause counts from the first of these, or the last common one.
        looked = min((since for since in begun if since > self._looked), default=self._looked)
        return max(looked + pause - now, 0.0)

    def _look(self, task_ids: set[str]) -> None:
        start = time.monotonic()
        rows = self._notifier.fetch(task_ids)
        self._looked = time.monotonic()
        self._look_took = self._looked - start
        self._reachable = True
        with self._lock:
            subscriptions = list(self._subscriptions)
        found = {row["task_id"]: row for row in rows}
        for subscription in subscriptions:
            for task_id in subscription.missing & found.keys():
                subscription.offer(found[task_id])
        if rows:
            time.sleep(COURTESY)
        for subscription in subscriptions:
            if isinstance(subscription, _Watch) and not subscription.missing:
                self._end(subscription)


def _before_fork(reference: weakref.ref[Consumer]) -> None:
    consumer = reference()
    if consumer is not None:
        consumer._notifier.before_fork()


def _after_fork(reference: weakref.ref[Consumer], in_child: bool) -> None:
    """In a forked child nobody waits yet, and the thread and the connections are the parent's."""
    consumer = reference()
    if consumer is None:
        return
    if in_child:
        consumer._forget_all()
    consumer._notifier.after_fork(in_child)
