"""A pool of connections that nobody finds dead, and the short way to take one out of it.

``pool_pre_ping`` pings before each use, which is a round trip for each statement. Here a connection is pinged only
after it was idle; what fails on one that died since is tried again by whoever uses it. What was idle for longer is
closed.
"""

from __future__ import annotations

import math
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import exc, pool
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from celery_sql_results._compat import POOL, are_there, private
from celery_sql_results.boundaries import undone

from .idle import watch

__all__ = ["IDLE_TIMEOUT", "UNSENT", "PingingPool", "connected", "pool_options"]

#: What a driver raises over a value that it cannot send, and SQLAlchemy does not speak for.
UNSENT = (OverflowError, UnicodeEncodeError)

#: How pg8000 tells of a connection that was cut, also while it was opened or pinged, and SQLAlchemy passes it on.
CUT = (ConnectionError, TimeoutError, ssl.SSLError)

#: Seconds after which an unused connection is pinged before it is used again.
PING_AFTER = 1.0
#: Seconds after which an unused connection is closed, unless a setting says otherwise. To open one takes some
#: milliseconds. A state that is no outcome waits for one that others hold for 5 s at most.
IDLE_TIMEOUT = 3.0
#: So many times as long, a connection is closed that is used all the time, when it is not in use. Behind a pooler that
#: has too few for all, those who wait for one get their turn.
IN_USE = 10
#: Under what an entry of the pool keeps the time when its connection was first seen idle, and its share of chance.
SEEN = "celery_sql_results.seen"

#: What SQLAlchemy's pool expects of an empty and of a full queue.
_Empty: Any = private("sqlalchemy.util.queue:Empty")
_Full: Any = private("sqlalchemy.util.queue:Full")


class _Queue:
    """What SQLAlchemy keeps idle connections in. Only those take its lock who have to wait: a deque can do without."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize, self.use_lifo = maxsize, use_lifo
        self._things: deque[Any] = deque()
        self._take = self._things.pop if use_lifo else self._things.popleft
        self._added, self._waiting = threading.Condition(), 0

    def qsize(self) -> int:
        """How many things there are."""
        return len(self._things)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take something, and wait for it up to ``timeout`` seconds."""
        try:
            return self._take()
        except IndexError:
            if not block:
                raise _Empty from None
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._added:
            self._waiting += 1  # first, then another look: who adds something does it the other way round
            try:
                return self._wait(deadline)
            finally:
                self._waiting -= 1

    def _wait(self, deadline: float | None) -> Any:
        while True:
            try:
                return self._take()
            except IndexError:  # others may be quicker
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise _Empty from None
                self._added.wait(left)

    def put(self, item: Any, block: bool = True) -> None:
        """Add something. Nobody waits for room: a pool closes what does not fit. Two threads at once may fit in."""
        if len(self._things) >= self.maxsize > 0:
            raise _Full
        self._things.append(item)
        self._wake()

    def _wake(self) -> None:
        if self._waiting:
            with self._added:
                self._added.notify()

    def things(self) -> list[Any]:
        """All that are there just now."""
        return list(self._things)

    def take_out(self, thing: Any) -> bool:
        """Take this one, and return whether it was there."""
        try:
            self._things.remove(thing)
        except (ValueError, IndexError):  # the latter if others take and add meanwhile
            return False
        return True

    def put_last(self, thing: Any) -> None:
        """Add what is to be taken after all others."""
        (self._things.appendleft if self.use_lifo else self._things.append)(thing)
        self._wake()


class PingingPool(pool.QueuePool):
    """SQLAlchemy's usual pool. A dead connection takes all others of its age out of the pool with it.

    It overrides what is not public: :func:`pool_options` tells whether it can.

    Args:
        idle_timeout: seconds after which an unused connection is closed; 0 keeps it.
    """

    #: It logs where SQLAlchemy's documentation says that a pool does.
    _sqla_logger_namespace = "sqlalchemy.pool.impl.QueuePool"
    #: The quick path of the engine that these connections are of, once somebody has asked for it.
    quick: Any = None

    def __init__(self, creator: Any, idle_timeout: float = 0, **options: Any) -> None:
        super().__init__(creator, **options)
        self._keep(idle_timeout)

    def _keep(self, idle_timeout: float) -> None:
        self.idle_timeout = idle_timeout
        #: Whether somebody looks for idle connections, or nobody has to.
        self.is_watched = idle_timeout in {0, math.inf}

    def _queue_class(self, *args: Any, **options: Any) -> _Queue:  # type: ignore[override]  # which is called, no more
        self._idle = _Queue(*args, **options)
        return self._idle

    def recreate(self) -> PingingPool:
        """A pool like this, without its connections."""
        made: Any = super().recreate()
        made._keep(self.idle_timeout)
        return made  # type: ignore[no-any-return]

    def take(self) -> Any:
        """Take an entry with a live connection, as SQLAlchemy does, without its proxy. Check-outs are told nobody.

        :meth:`give_back` returns it.
        """
        entry = self._do_get()
        try:
            entry.get_connection()
        except BaseException as error:  # whatever it is, the pool must not have one less for good
            entry.invalidate(error)
            self._do_return_conn(entry)
            raise
        return entry

    def renew(self) -> None:
        """Let all connections that were opened before now be opened anew by their next use."""
        nobody: Any = None
        self._invalidate(nobody, _checkin=False)

    def _do_return_conn(self, record: Any) -> None:
        record.idle_since = time.monotonic()
        super()._do_return_conn(record)
        if not self.is_watched:
            watch(self)

    give_back = _do_return_conn  # what was taken

    def _do_get(self) -> Any:
        record: Any = super()._do_get()
        idle_since = getattr(record, "idle_since", None)
        if idle_since is not None and time.monotonic() - idle_since > PING_AFTER:
            self._check(record)
        return record

    def close_idle(self) -> float | None:
        """Close what nobody has used for the timeout, or what was used for long; its entries stay, to be opened anew.

        Return when to look again (monotonic), or ``None`` if nothing is open.
        """
        opened = [record for record in self._idle.things() if record.dbapi_connection is not None]
        for record in opened:
            if self._is_over(record) and self._idle.take_out(record):
                self._close(record)
        since = [record.idle_since for record in opened if record.dbapi_connection is not None]
        if not since and self.checkedout() <= 0:
            return None
        return min(since, default=time.monotonic()) + self.idle_timeout

    def _is_over(self, record: Any) -> bool:
        now = time.monotonic()
        if now - record.idle_since >= self.idle_timeout:
            return True
        seen = record.info.setdefault(SEEN, (now, random.uniform(0.75, 1.25)))  # noqa: S311 - not all at once
        return bool(now - seen[0] >= seen[1] * self.idle_timeout * IN_USE)

    def _close(self, record: Any) -> None:
        try:
            if self._is_over(record):  # or it was in use just now
                record.idle_since = time.monotonic()  # if that fails, not again at once
                record.close()
                record.info.clear()  # what was known of the connection
        finally:
            self._idle.put_last(record)

    def _check(self, record: Any) -> None:
        """Let a dead connection be opened anew by its next use, which is at once."""

        def give_up() -> None:  # the entry goes back, or the pool had one less for good
            record.invalidate()  # but not with a connection whose answer is still to come
            self._do_return_conn(record)

        with undone(give_up):
            if record.dbapi_connection is None or self._answers(record.dbapi_connection):
                return
        self.renew()
        record.invalidate()

    def _answers(self, connection: DBAPIConnection) -> bool:
        dialect: Any = self._dialect
        try:
            return bool(dialect.do_ping(connection))
        except (dialect.loaded_dbapi.Error, *CUT):
            return False


def pool_options(idle_timeout: float) -> dict[str, Any]:
    """Options of ``create_engine`` for a pool that pings: ours, or SQLAlchemy's where ours has lost its footing.

    Args:
        idle_timeout: seconds after which an unused connection is closed; 0 keeps it. SQLAlchemy's pool keeps it.
    """
    if not are_there(POOL):
        return {"pool_pre_ping": True}
    return {"poolclass": PingingPool, "pool_pre_ping": False, "idle_timeout": idle_timeout}


@contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    """A connection that does not go back to its pool in the middle of a statement: then it is closed."""
    try:
        with engine.connect() as connection:
            try:
                yield connection
            except (exc.SQLAlchemyError, *UNSENT):
                raise
            except BaseException:  # a time limit strikes anywhere
                connection.invalidate()
                raise
    except CUT as error:
        lost = not isinstance(error, ssl.SSLCertVerificationError)
        raise exc.OperationalError("", None, error, connection_invalidated=lost) from error
