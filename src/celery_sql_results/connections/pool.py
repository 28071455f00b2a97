"""A pool of connections that nobody finds dead, and the short way to take one out of it.

``pool_pre_ping`` pings before each use, which is a round trip for each statement. Here a connection is pinged only
after it was idle; what fails on one that died since is tried again by whoever uses it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import exc, pool
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.util import queue

__all__ = ["UNSENT", "PingingPool", "check_out", "connected"]

#: What a driver raises over a value that it cannot send, and SQLAlchemy does not speak for.
UNSENT = (OverflowError, UnicodeEncodeError)

#: Seconds after which an unused connection is pinged before it is used again.
PING_AFTER = 1.0


class _Queue(queue.Queue[Any]):
    """SQLAlchemy's queue, in which only those take its lock who have to wait: its deque can do without."""

    _waiting = 0

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self._get()
        except IndexError:
            if not block:
                raise queue.Empty from None
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.mutex:
            self._waiting += 1  # first, then another look: who adds something does it the other way round
            try:
                while True:
                    with suppress(IndexError):  # others may be quicker
                        return super().get(timeout=deadline and max(0.0, deadline - time.monotonic()))
            finally:
                self._waiting -= 1

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add something. Nobody waits for room: a pool closes what does not fit. Two threads at once may fit in."""
        if len(self.queue) >= self.maxsize > 0:
            raise queue.Full
        self.queue.append(item)
        if self._waiting:
            with self.mutex:
                self.not_empty.notify()


class PingingPool(pool.QueuePool):
    """SQLAlchemy's usual pool. A dead connection takes all others of its age out of the pool with it."""

    _queue_class = _Queue

    def _do_return_conn(self, record: Any) -> None:
        record.idle_since = time.monotonic()
        super()._do_return_conn(record)

    def _do_get(self) -> Any:
        record: Any = super()._do_get()
        idle_since = getattr(record, "idle_since", None)
        if idle_since is not None and time.monotonic() - idle_since > PING_AFTER:
            self._check(record)
        return record

    def _check(self, record: Any) -> None:
        """Let a dead connection be opened anew by its next use, which is at once."""
        try:
            if record.dbapi_connection is None or self._answers(record.dbapi_connection):
                return
        except BaseException:  # a time limit strikes anywhere: the entry goes back, or the pool had one less for good
            record.invalidate()  # but not with a connection whose answer is still to come
            self._do_return_conn(record)
            raise
        self._invalidate_time = time.time()
        record.invalidate()

    def _answers(self, connection: DBAPIConnection) -> bool:
        dialect: Any = self._dialect
        try:
            return bool(dialect.do_ping(connection))
        except dialect.loaded_dbapi.Error:
            return False


@contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    """A connection that does not go back to its pool in the middle of a statement: then it is closed."""
    with engine.connect() as connection:
        try:
            yield connection
        except (exc.SQLAlchemyError, *UNSENT):
            raise
        except BaseException:  # a time limit strikes anywhere
            connection.invalidate()
            raise


def check_out(source: Any) -> Any:
    """Take an entry with a live connection out of a pool, as SQLAlchemy does, without its proxy.

    ``source._do_return_conn(entry)`` puts it back. For pools whose check-outs nobody listens to.
    """
    entry = source._do_get()
    try:
        entry.get_connection()
    except BaseException as error:  # whatever it is, the pool must not have one less for good
        entry._checkin_failed(error, _fairy_was_created=False)
        raise
    return entry
