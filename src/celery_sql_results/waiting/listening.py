"""Listen to notifications of the server, as PostgreSQL sends them.

Whoever waits leaves a row, the writer of a result finds it and notifies the channel of that process. This takes a
connection of its own, which must reach the server directly: PgBouncer in transaction mode does not pass notifications
on. So a test message is sent first. Until it has arrived, and while it does not, the rows are polled.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection
from contextlib import closing, suppress

from celery.exceptions import SoftTimeLimitExceeded

from celery_sql_results.boundaries import caught
from celery_sql_results.dialects import Listener
from celery_sql_results.foreign import escaping
from celery_sql_results.rows import WaiterRows
from celery_sql_results.writing import describe

from .notifier import Ears

__all__ = ["ListenNotifier", "arrives"]

logger = escaping(logging.getLogger(__name__))

#: Seconds that a test message may take.
TEST_TIMEOUT = 2.0
#: Seconds before a connection that was lost or given up is opened again, doubled each time that this fails.
FIRST_RECONNECT, LAST_RECONNECT = 1.0, 60.0
#: Seconds without a message after which a quiet connection is tested once more; a dead one would go unnoticed.
KEEPALIVE_INTERVAL = 30.0
#: The warning comes with the failure of this number to open the connection while the database can be reached.
WARN_AFTER = 2


class _Deaf(Exception):
    """The connection is there, and a test message did not arrive."""


class ListenNotifier(threading.Thread):
    """Listens on a connection of its own. All that is done with it is done in this thread, however long it takes.

    Args:
        listener: the connection, not open yet.
        waiters: where the test messages are sent.
        ears: who is told.
        channel: what to listen to.
    """

    tells_which = True

    def __init__(self, listener: Listener, waiters: WaiterRows, ears: Ears, channel: str) -> None:
        super().__init__(name="celery-sql-results-listen", daemon=True)
        self.hears, self.is_hopeful = False, True
        self._listener, self._waiters, self._ears, self._channel = listener, waiters, ears, channel
        self._ended = threading.Event()
        self._interrupt: Callable[[], object] = lambda: None
        self._failures = self._odd_failures = self._deaf = 0
        #: The test message that is under way, and when it is late; or when to send the next.
        self._token, self._token_ends, self._quiet_ends = "", 0.0, 0.0

    def run(self) -> None:
        """Listen, and begin anew when that fails, until it is ended."""
        while not self._ended.is_set():
            with caught(SoftTimeLimitExceeded) as failure:  # whatever a driver or a callback raises, it is told
                self._listen()
            was_heard, self.hears = self.hears, False
            if self._ended.is_set():
                return
            if was_heard:
                self._ears.tuned()
            self._ended.wait(self._failed(failure.error, was_heard))

    def wake(self) -> None:
        """Whoever begins to wait has no need of that."""

    def end(self) -> None:
        self._ended.set()
        self._interrupt()

    def before_fork(self) -> None:
        """The connection stays the parent's."""

    def after_fork(self) -> None:
        """It goes on."""

    # -- one connection ------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._listener = self._listener.copy()
        inner, outer = socket.socketpair()
        with inner, outer, selectors.DefaultSelector() as selector:
            outer.setblocking(False)
            self._interrupt = lambda: _nudge(outer)
            try:
                self._listener.open(self._channel)
                selector.register(self._listener, selectors.EVENT_READ)
                selector.register(inner, selectors.EVENT_READ)
                self._test()
                while not self._ended.is_set():
                    self._turn(selector)
            finally:
                self._interrupt = lambda: None
                self._listener.close()

    def _turn(self, selector: selectors.BaseSelector) -> None:
        until = self._token_ends if self._token else self._quiet_ends
        readable = selector.select(max(until - time.monotonic(), 0.0))
        if any(key.fileobj is self._listener for key, _ in readable):
            self._quiet_ends = time.monotonic() + KEEPALIVE_INTERVAL
            self._heard(self._listener.received())
        now = time.monotonic()
        if self._token and now > self._token_ends:
            raise _Deaf
        if not self._token and now > self._quiet_ends:
            self._test()

    def _test(self) -> None:
        """Have a message sent that nobody can guess: who floods the channel with old ones tells nothing."""
        self._token = f"test {uuid.uuid4().hex}"
        self._token_ends = time.monotonic() + TEST_TIMEOUT
        self._waiters.notify(self._channel, self._token)
        self._token_ends = max(self._token_ends, time.monotonic() + TEST_TIMEOUT / 2)

    def _heard(self, messages: Collection[str]) -> None:
        if self._token and self._token in messages:
            self._token = ""
            self._quiet_ends = time.monotonic() + KEEPALIVE_INTERVAL
            self._failures = self._odd_failures = 0
            if not self.hears:
                self.hears = self.is_hopeful = True
                self._ears.tuned()
        self._ears.heard(messages)

    # -- what goes wrong -----------------------------------------------------------------------------------------

    def _failed(self, error: BaseException | None, was_heard: bool) -> float:
        """Tell of a failure, and return after how many seconds it is tried again."""
        self._token = ""
        pause: float = min(FIRST_RECONNECT * 2 ** min(self._failures, 10), LAST_RECONNECT)
        self._failures += 1
        if was_heard:
            logger.debug("the connection for notifications was lost, polling until it is back")
        else:
            self.is_hopeful = False
            self._complain(error)
        return pause

    def _complain(self, error: BaseException | None) -> None:
        """One warning of each kind, and none for an outage, of which others tell, nor as one has just ended."""
        if isinstance(error, _Deaf):
            self._deaf += 1
            log = logger.warning if self._deaf == 1 else logger.debug
            log(
                "notifications do not arrive, so results are polled, and it is tried again, every %d s at last. Behind "
                "PgBouncer in transaction mode, set database_listen_url to a URL that reaches the server directly, or "
                "database_listen to False.",
                LAST_RECONNECT,
            )
            return
        is_odd = self._database_answers()
        self._odd_failures += is_odd
        log = logger.warning if is_odd and self._odd_failures == WARN_AFTER else logger.debug
        log(
            "no connection for notifications (%s), so results are polled and it is tried again, every %d s at last. "
            "Is database_listen_url right, or should database_listen be False?",
            *(describe(error) if error else "it has ended", LAST_RECONNECT),
        )

    def _database_answers(self) -> bool:
        with caught() as failure:
            self._waiters.notify(self._channel, "")
        return failure.error is None


def arrives(listener: Listener, waiters: WaiterRows) -> bool:
    """Whether a notification arrives on a connection that is opened for that."""
    channel, token = f"celery_{uuid.uuid4().hex}", uuid.uuid4().hex
    ends = time.monotonic() + TEST_TIMEOUT
    with selectors.DefaultSelector() as selector, closing(listener):
        listener.open(channel)
        selector.register(listener, selectors.EVENT_READ)
        waiters.notify(channel, token)
        while (left := ends - time.monotonic()) > 0:
            if selector.select(left) and token in listener.received():
                return True
    return False


def _nudge(outer: socket.socket) -> None:
    with suppress(OSError):  # enough of them wait to be read, or it was closed just now
        outer.send(b"!")
