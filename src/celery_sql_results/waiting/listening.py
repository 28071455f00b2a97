"""Wait for notifications of the server, as PostgreSQL sends them.

Whoever waits leaves a row, the writer of a result finds it and notifies the channel of that process. This takes a
connection of its own, which must reach the server directly: PgBouncer in transaction mode does not pass notifications
on. So a test message is sent first; until it has arrived, and for good if it does not, the rows are polled.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

from celery import states
from celery.utils.log import get_logger
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from celery_sql_results.boundaries import caught
from celery_sql_results.dialects import Listener
from celery_sql_results.rows import TaskRows, WaiterRows
from celery_sql_results.writing import describe

from .notifier import Row

__all__ = ["ListenNotifier"]

logger = get_logger(__name__)

#: Most ids of one wait that get a row of their own; more are polled in one query, which costs the writers nothing.
MOST_ROWS = 100
#: Seconds that the test message may take.
TEST_TIMEOUT = 2.0
#: Seconds before a lost connection is opened again, doubled each time that this fails.
FIRST_RECONNECT, LAST_RECONNECT = 1.0, 60.0
#: Seconds between two signs of life on a quiet connection; a dead one would go unnoticed.
KEEPALIVE_INTERVAL = 30.0
#: The warning comes with the failure of this number to open the connection while the database can be reached.
WARN_AFTER = 2
TEST = "test"
_FINISHED = states.READY_STATES


class _Opening(threading.Thread):
    """Opens a listener. That may take half a minute, and the looks must go on meanwhile."""

    def __init__(self, listener: Listener, channel: str, tasks: TaskRows, when_done: Callable[[], None]) -> None:
        super().__init__(name="celery-sql-results-listen", daemon=True)
        self.listener = listener
        self.error: BaseException | None = None
        #: Whether it failed although the database itself can be reached.
        self.is_odd = False
        self.is_done = False
        self._channel, self._tasks, self._when_done = channel, tasks, when_done
        self._lock, self._unwanted = threading.Lock(), False

    def run(self) -> None:
        """Open it, or note the error."""
        with caught() as failure:  # whatever a driver or a callback raises, it is told
            self.listener.open(self._channel)
        self.error = failure.error
        self.is_odd = failure.error is not None and self._database_answers()
        self._done()
        self._when_done()

    def _done(self) -> None:
        with self._lock:
            self.is_done = True
            if self._unwanted:
                self.listener.close()

    def abandon(self) -> None:
        """Have the connection closed, now or as soon as it is open."""
        with self._lock:
            self._unwanted = True
            if self.is_done:
                self.listener.close()

    def _database_answers(self) -> bool:
        with caught() as failure:
            self._tasks.exists(self._channel)
        return failure.error is None


class ListenNotifier:
    """Waits on a connection of its own.

    Args:
        tasks: where results are found.
        waiters: where rows of waiters are left, and the test message is sent.
        listener: the connection, not open yet.
    """

    def __init__(self, tasks: TaskRows, waiters: WaiterRows, listener: Listener) -> None:
        self._tasks = tasks
        self._waiters = waiters
        self._listener = listener
        self._given_up = False
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._reset()

    def _reset(self) -> None:
        self.channel = f"celery_{os.getpid()}_{uuid.uuid4().hex[:16]}"
        self._watched: set[str] = set()
        self._left: set[str] = set()  # those with a row that no writer is known to have removed
        self._opening: _Opening | None = None
        self._failures = self._odd_failures = 0
        self._hears = False
        self._test_ends = self._next_try = self._last_sign = 0.0
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        self._select(self._inner)

    def _select(self, *sockets: Any) -> None:
        """Wait for these from now on. The function ``select`` itself takes no file numbers above 1023."""
        self._selector.close()
        self._selector = selectors.DefaultSelector()
        for each in sockets:
            self._selector.register(each, selectors.EVENT_READ)

    # -- what is watched -----------------------------------------------------------------------------------------

    def add(self, task_ids: Collection[str]) -> list[Row]:
        if self._given_up or len(task_ids) > MOST_ROWS:
            return self.fetch(task_ids)
        try:
            rows = self._waiters.await_many(task_ids, self.channel)
        except ProgrammingError as error:
            logger.warning("this role may not leave rows of waiters, so results are polled: %s", error.orig)
            self._given_up = True
            return self.fetch(task_ids)
        self._watched.update(task_ids)
        self._left.update(set(task_ids).difference(row["task_id"] for row in rows if row["status"] in _FINISHED))
        return rows

    def fetch(self, task_ids: Collection[str]) -> list[Row]:
        return self._tasks.fetch_many(task_ids)

    def remove(self, task_ids: Collection[str], unfinished: Collection[str]) -> None:
        left = self._watched.intersection(unfinished) | self._left.intersection(task_ids)
        self._watched.difference_update(task_ids)
        self._left.difference_update(task_ids)
        if left:
            try:
                self._waiters.await_no_more(left, self.channel)
            except SQLAlchemyError:  # the row is found by whoever cleans up
                logger.debug("could not withdraw the wait for %d tasks", len(left), exc_info=True)

    def tells(self, task_ids: Collection[str]) -> bool:
        return self._hears and self._watched.issuperset(task_ids)

    # -- waiting -------------------------------------------------------------------------------------------------

    def wait(self, longest: float) -> Collection[str] | None:
        try:
            self._connect()
            return self._wait(longest)
        except (SQLAlchemyError, OSError) as error:
            logger.info(
                "the connection for notifications was lost (%s), polling until it is back", type(error).__name__
            )
            self.close()
            self._next_try = time.monotonic() + FIRST_RECONNECT
            return None

    def _connect(self) -> None:
        """Have the connection opened if there is none, and use it when it is."""
        opening = self._opening
        if opening is not None and opening.is_done:
            self._opening = None
            if opening.error is None:
                self._use(opening.listener)
            else:
                self._failed(opening.error, opening.is_odd)
        elif opening is None and self._may_connect():
            self._opening = _Opening(self._listener.copy(), self.channel, self._tasks, self.interrupt)
            try:
                self._opening.start()
            except RuntimeError as error:  # the system has no thread to spare
                self._opening = None
                self._failed(error, is_odd=True)

    def _may_connect(self) -> bool:
        return not self._given_up and not self._listener.is_open and time.monotonic() >= self._next_try

    def _use(self, listener: Listener) -> None:
        """Announce again what is watched, since a crashed server forgot it, and send the test message."""
        self._listener, self._failures, self._odd_failures = listener, 0, 0
        self._select(self._inner, self._listener)
        self._waiters.await_many(list(self._watched), self.channel)
        self._left.update(self._watched)
        self._waiters.notify(self.channel, TEST)
        self._last_sign = time.monotonic()
        self._test_ends = self._last_sign + TEST_TIMEOUT

    def _failed(self, error: BaseException, is_odd: bool) -> None:
        """Try again later. One warning, and none for an outage, of which others tell, nor as one has just ended."""
        self._next_try = time.monotonic() + min(FIRST_RECONNECT * 2 ** min(self._failures, 10), LAST_RECONNECT)
        self._failures += 1
        self._odd_failures += is_odd
        log = logger.warning if is_odd and self._odd_failures == WARN_AFTER else logger.info
        log(
            "no connection for notifications (%s), so results are polled and it is tried again, every %d s at last. "
            "Is database_listen_url right, or should database_listen be False?",
            *(describe(error), LAST_RECONNECT),
        )

    def _wait(self, longest: float) -> Collection[str] | None:
        readable = [key.fileobj for key, _events in self._selector.select(longest)]
        if self._inner in readable:
            self._inner.recv(4096)
        if self._listener in readable:
            self._last_sign = time.monotonic()
            return self._heard(self._listener.received())
        self._check()
        return () if readable else None

    def _heard(self, messages: list[str]) -> Collection[str] | None:
        if TEST not in messages:
            self._left.difference_update(messages)  # whoever notifies of a finished task has removed the row
            return messages
        self._hears = True  # what changed before is looked at once more, from now on we are told
        return None

    def _check(self) -> None:
        """Give up where the test message did not arrive; give a sign of life where nothing has been heard for long."""
        if not self._listener.is_open:
            return
        now = time.monotonic()
        if not self._hears and now > self._test_ends:
            logger.warning(
                "notifications do not arrive, so results are polled. Behind PgBouncer in transaction mode, set "
                "database_listen_url to a URL that reaches the server directly, or database_listen to False."
            )
            self._given_up = True
            self.close()
        elif now - self._last_sign > KEEPALIVE_INTERVAL:
            self._listener.ping()
            self._last_sign = now

    def interrupt(self) -> None:
        try:
            self._outer.send(b"!")
        except BlockingIOError:  # enough of them are waiting to be read
            return

    def close(self) -> None:
        self._hears = False
        if self._opening is not None:
            self._opening.abandon()
            self._opening = None
        if self._listener.is_open:
            self._select(self._inner)
            self._listener.close()

    def __del__(self) -> None:
        self._close_sockets()

    def _close_sockets(self) -> None:
        self._inner.close()
        self._outer.close()

    def before_fork(self) -> None:
        """The connection stays the parent's."""

    def after_fork(self, in_child: bool) -> None:
        if not in_child:
            return
        self._close_sockets()
        _left_to_parent.extend((self._listener, self._opening))
        self._listener = self._listener.copy()
        self._reset()


#: Connections that were open when this process was forked. They are kept, because their end would close the parent's.
_left_to_parent: list[object] = []
