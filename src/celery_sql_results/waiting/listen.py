"""Wait for notifications of the server, as PostgreSQL sends them.

Whoever waits leaves a row, the writer of a result finds it and notifies the channel of that process. This takes a
connection of its own, which must reach the server directly: PgBouncer in transaction mode does not pass notifications
on. So a test message is sent first; until it has arrived, and for good if it does not, the rows are polled.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
import uuid
from collections.abc import Collection
from typing import Any

from celery.utils.log import get_logger
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from celery_sql_results.dialects import Listener
from celery_sql_results.store import Store

from .notifier import Row

__all__ = ["ListenNotifier"]

logger = get_logger(__name__)

#: Most ids of one wait that get a row of their own; more are polled in one query, which costs the writers nothing.
MOST_ROWS = 100
#: Seconds that the test message may take.
TEST_TIMEOUT = 2.0
#: Seconds before a lost connection is opened again.
RECONNECT_INTERVAL = 1.0
#: Seconds between two signs of life on a quiet connection; a dead one would go unnoticed.
KEEPALIVE_INTERVAL = 30.0
TEST = "test"


class ListenNotifier:
    """Waits on a connection of its own.

    Args:
        store: where rows of waiters are left, and the test message is sent.
        listener: the connection, not open yet.
    """

    def __init__(self, store: Store, listener: Listener) -> None:
        self._store = store
        self._listener = listener
        self._watched: set[str] = set()
        self._given_up = False
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._reset()

    def _reset(self) -> None:
        self.channel = f"celery_{os.getpid()}_{uuid.uuid4().hex[:16]}"
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
            rows = self._store.await_many(task_ids, self.channel)
        except ProgrammingError as error:
            logger.warning("this role may not leave rows of waiters, so results are polled: %s", error.orig)
            self._given_up = True
            return self.fetch(task_ids)
        self._watched.update(task_ids)
        return rows

    def fetch(self, task_ids: Collection[str]) -> list[Row]:
        return self._store.fetch_many(task_ids)

    def remove(self, task_ids: Collection[str], unfinished: Collection[str]) -> None:
        left = self._watched.intersection(unfinished)
        self._watched.difference_update(task_ids)
        if left:
            try:
                self._store.await_no_more(left, self.channel)
            except SQLAlchemyError:  # the row is found by whoever cleans up
                logger.debug("could not withdraw the wait for %d tasks", len(left), exc_info=True)

    def tells(self, task_ids: Collection[str]) -> bool:
        return self._hears and self._watched.issuperset(task_ids)

    # -- waiting -------------------------------------------------------------------------------------------------

    def wait(self, longest: float) -> Collection[str] | None:
        try:
            if not self._listener.is_open and not self._given_up and time.monotonic() >= self._next_try:
                self._open()
            return self._wait(longest)
        except (SQLAlchemyError, OSError) as error:
            logger.info(
                "the connection for notifications was lost (%s), polling until it is back", type(error).__name__
            )
            self.close()
            self._next_try = time.monotonic() + RECONNECT_INTERVAL
            return None

    def _open(self) -> None:
        """Listen, announce again what is watched (a crashed server forgot it), and send the test message."""
        self._listener.open(self.channel)
        self._select(self._inner, self._listener)
        self._store.await_many(list(self._watched), self.channel)
        self._store.notify(self.channel, TEST)
        self._last_sign = time.monotonic()
        self._test_ends = self._last_sign + TEST_TIMEOUT

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
        _left_to_parent.append(self._listener)
        self._listener = self._listener.copy()
        self._watched = set()
        self._reset()


#: Connections that were open when this process was forked. They are kept, because their end would close the parent's.
_left_to_parent: list[object] = []
