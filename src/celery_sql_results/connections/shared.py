"""One connection that all threads of a process must share, as a database in memory is one: had by one at a time."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from sqlalchemy import exc

from celery_sql_results.boundaries import undone

__all__ = ["Lease", "SharedConnection"]

#: Seconds that a fork waits for a thread in the middle of a statement.
FORK_PATIENCE = 5.0


class _Turn:
    """A lock that a thread may take again, and that any thread may give back. Who asks first has it first."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._owner: int | None = None
        self._queue: deque[object] = deque()
        self.depth = 0

    def take(self, timeout: float | None) -> bool:
        """Take it within ``timeout`` seconds, and return whether that was possible."""
        me, ticket = threading.get_ident(), object()
        with self._changed:
            if not self.depth or self._owner != me:
                self._queue.append(ticket)
                try:
                    if not self._changed.wait_for(lambda: not self.depth and self._queue[0] is ticket, timeout):
                        return False
                finally:
                    self._queue.remove(ticket)
                    self._changed.notify_all()
            self._owner, self.depth = me, self.depth + 1
            return True

    def give_back(self) -> None:
        """Undo one :meth:`take`."""
        with self._changed:
            self.depth -= 1
            self._changed.notify_all()


class SharedConnection:
    """Lends one connection of a driver, which is opened for the first who wants it.

    Args:
        timeout: seconds that a thread waits for its turn; ``None`` is without an end.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._turn = _Turn()
        self._connection: Any = None
        self._is_still = False
        _all.add(self)

    def lend(self, connect: Callable[[], Any]) -> Lease:
        """The connection, as soon as no other thread has it.

        Raises:
            sqlalchemy.exc.TimeoutError: another thread has it for longer than the timeout.
        """
        if not self._turn.take(self._timeout):
            raise exc.TimeoutError(f"another thread had the one connection of the database for {self._timeout} s")
        with undone(self._turn.give_back):
            if self._connection is None:
                self._connection = connect()
            return Lease(self._connection, self._turn.depth > 1, self._take_back)

    def _take_back(self, connection: Any) -> None:
        if connection is not self._connection and self._turn.depth == 1:
            connection.close()
        self._turn.give_back()

    def close(self) -> None:
        """Forget the connection: who has it now closes it, else it is closed at once. The next one is another."""
        connection, self._connection = self._connection, None
        if connection is not None and not self._turn.depth:
            connection.close()

    def before_fork(self) -> None:
        """A child must not inherit a connection in the middle of a statement."""
        self._is_still = self._turn.take(FORK_PATIENCE)

    def after_fork(self) -> None:
        """The parent goes on."""
        if self._is_still:
            self._turn.give_back()

    def after_fork_in_child(self) -> None:
        """Only the thread that has forked lives on: what it had remains its own, and nobody else has anything."""
        depth = self._turn.depth - 1 if self._is_still else 0
        self._turn = _Turn()  # the lock of the other may be held by a thread that is not here
        for _ in range(depth):
            self._turn.take(None)
        if not self._is_still:  # it is stuck in a statement for good, and could not even be closed
            _stuck.append(self._connection)
            self._connection = None


_all: WeakSet[SharedConnection] = WeakSet()
_stuck: list[Any] = []


def _each(do: Callable[[SharedConnection], None]) -> Callable[[], None]:
    def do_it() -> None:
        for shared in list(_all):
            do(shared)

    return do_it


os.register_at_fork(
    before=_each(SharedConnection.before_fork),
    after_in_parent=_each(SharedConnection.after_fork),
    after_in_child=_each(SharedConnection.after_fork_in_child),
)


class Lease:
    """A connection for as long as one has it: the driver's own, but that to close it is to give it back.

    A thread that has it already, with a transaction open, joins that transaction: who has begun it ends it.
    """

    __slots__ = ("__weakref__", "_connection", "_give_back", "_is_nested", "_joins")

    def __init__(self, connection: Any, is_nested: bool, give_back: Callable[[Any], None]) -> None:
        for name, value in {
            "_connection": connection,
            "_is_nested": is_nested,
            "_joins": is_nested and connection.in_transaction,
            "_give_back": give_back,
        }.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._joins:  # to set a level of isolation is to commit
            setattr(self._connection, name, value)

    def create_function(self, *args: Any, **options: Any) -> None:
        """As the driver does it, but not while a statement may be running: then it was done before."""
        if not self._is_nested:
            self._connection.create_function(*args, **options)

    def commit(self) -> None:
        """Commit, unless the transaction is another's."""
        if not self._joins:
            self._connection.commit()

    def rollback(self) -> None:
        """Roll back, unless the transaction is another's."""
        if not self._joins:
            self._connection.rollback()

    def close(self) -> None:
        """Give the connection back, once, and nothing that is not committed with it."""
        give_back = self._give_back
        if give_back is None:
            return
        object.__setattr__(self, "_give_back", None)
        try:
            self.rollback()
        finally:
            give_back(self._connection)
