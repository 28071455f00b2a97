"""Held by a thread of ours while it uses the database, and while the process forks."""

from __future__ import annotations

import os
import threading

__all__ = ["still"]

#: Seconds that a fork waits for what is under way.
FORK_PATIENCE = 5.0


class _Still:
    """A child must not inherit the middle of a statement, nor a lock inside of SQLite that a thread holds.

    SQLite keeps its locks by process as well, so a child would find the database locked by nobody.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._is_held = False
        # After that of the engines, so that it runs before it: the connection is idle then, and is closed.
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._begin)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _hold(self) -> None:
        self._is_held = self._lock.acquire(timeout=FORK_PATIENCE)

    def _let_go(self) -> None:
        if self._is_held:
            self._lock.release()

    def _begin(self) -> None:
        self._lock = threading.RLock()


still = _Still()
