"""Ways to wait that need nothing from the server: look from time to time, or look when the file has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results.dialects import ChangeCounter
from celery_sql_results.rows import TaskRows

from .notifier import Row

__all__ = ["ChangeNotifier", "PollNotifier"]

#: Seconds between two looks at a counter of changes; one costs microseconds, so they may be frequent.
FIRST_TICK, LAST_TICK = 0.001, 0.02
#: The pause between two ticks is this part of the time waited so far.
TICK_FRACTION = 0.02


class PollNotifier:
    """Any database: whoever waits decides how often to look."""

    def __init__(self, tasks: TaskRows) -> None:
        self._tasks = tasks
        self._interrupted = threading.Event()

    def add(self, task_ids: Collection[str]) -> list[Row]:
        return self.fetch(task_ids)

    def fetch(self, task_ids: Collection[str]) -> list[Row]:
        return self._tasks.fetch_many(task_ids)

    def remove(self, task_ids: Collection[str], unfinished: Collection[str]) -> None:
        """Nothing was left behind."""

    def wait(self, longest: float) -> Collection[str] | None:
        if self._interrupted.wait(longest):
            self._interrupted.clear()
            return ()
        return None

    def tells(self, task_ids: Collection[str]) -> bool:
        return False

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        """No connection is held."""

    def before_fork(self) -> None:
        """Nothing is held."""

    def after_fork(self, in_child: bool) -> None:
        if in_child:
            self._interrupted = threading.Event()


class ChangeNotifier(PollNotifier):
    """A database in a file: a counter, which ``count`` makes, says whether anybody has written."""

    def __init__(self, tasks: TaskRows, count: Callable[[], ChangeCounter]) -> None:
        super().__init__(tasks)
        self._count = count
        self._counter: ChangeCounter | None = None
        self._in_use = threading.Lock()

    def fetch(self, task_ids: Collection[str]) -> list[Row]:
        with self._in_use:  # not in the middle of a fork: the child would inherit SQLite's own locks, and hang
            return super().fetch(task_ids)

    def wait(self, longest: float) -> Collection[str] | None:
        start = time.monotonic()
        while (waited := time.monotonic() - start) < longest:
            if self._has_changed():
                return None
            tick = min(max(waited * TICK_FRACTION, FIRST_TICK), LAST_TICK)
            if self._interrupted.wait(tick):
                self._interrupted.clear()
                return ()
        return None

    def _has_changed(self) -> bool:
        """Whether anybody has written; true for a counter that is new, since nobody knows what was before."""
        with self._in_use:
            if self._counter is None:
                self._counter = self._count()
                return True
            try:
                return self._counter.has_changed()
            except SQLAlchemyError:  # the next one may work
                self._close()
                raise

    def tells(self, task_ids: Collection[str]) -> bool:
        return self._counter is not None

    def close(self) -> None:
        with self._in_use:
            self._close()

    def _close(self) -> None:
        counter, self._counter = self._counter, None
        if counter is not None:
            counter.close()

    def before_fork(self) -> None:
        """A database in a file must not be open while its process is forked: its locks belong to the process."""
        self._in_use.acquire()
        self._close()

    def after_fork(self, in_child: bool) -> None:
        super().after_fork(in_child)
        if in_child:
            self._in_use = threading.Lock()
        else:
            self._in_use.release()
