"""Do something, but wait for it only so long: it runs in a thread of its own, which goes on if it must."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextvars import copy_context

__all__ = ["Late", "bounded"]

#: Seconds for which a thread that has nothing to do waits for the next operation: making one takes longer than most.
LINGER = 10.0


class Late(Exception):
    """It was not done in time. It goes on, and may still be done."""


class _Job:
    """One operation, and how it went."""

    def __init__(self, operation: Callable[[], object]) -> None:
        self._operation = operation
        self._context = copy_context()
        self.done = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._context.run(self._operation)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits, if anybody does
            self.error = error
        self.done.set()


class _Hand(threading.Thread):
    """A thread that does one job after another."""

    def __init__(self) -> None:
        super().__init__(name="celery-sql-results-bounded", daemon=True)
        self.jobs: queue.Queue[_Job] = queue.Queue()

    def run(self) -> None:
        while True:
            try:
                self.jobs.get(timeout=LINGER).run()
            except queue.Empty:
                try:
                    _idle.remove(self)
                except ValueError:  # somebody has just taken it
                    continue
                return
            _idle.append(self)


_idle: list[_Hand] = []
os.register_at_fork(after_in_child=_idle.clear)  # the threads are the parent's


def bounded(operation: Callable[[], object], seconds: float) -> None:
    """Run ``operation`` in another thread, in a copy of this context.

    Raises:
        Late: it was not done within so many seconds.
        whatever ``operation`` raised.
    """
    job = _Job(operation)
    try:
        hand = _idle.pop()
    except IndexError:
        hand = _Hand()
        hand.start()
    hand.jobs.put(job)
    if not job.done.wait(seconds):
        raise Late
    if job.error is not None:
        raise job.error
