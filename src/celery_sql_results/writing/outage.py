"""What the log is told while a database is away: one line when that begins, one of what is lost, one when it is over.

A worker and its children keep what they know in memory that they share. So a worker tells it once, whichever of its
processes and threads notices, and however many backends they have.
"""

from __future__ import annotations

import ctypes
import logging
import math
import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from weakref import WeakSet, WeakValueDictionary

from celery_sql_results.foreign import escaping
from celery_sql_results.settings import Policy

from .described import describe

__all__ = ["FULL", "KEPT", "LEFT_OUT", "LOST", "NO_MORE", "Outage"]

logger = escaping(logging.getLogger(__name__))

#: What is told of the first in an outage only: a result that is kept, or lost, a spool that is full, a state that is no
#: outcome and was left out.
KEPT, LOST, FULL, LEFT_OUT = 1, 2, 4, 8
#: What is added to such a line.
NO_MORE = "There is no line for those that follow, until the database is well."
#: Seconds of trouble that nobody is told of: two writers that met, a connection that was cut, a restart of a pooler.
SHORT = 1.0
#: Processes whose operations are counted apart.
SLOTS = 256


class _Slot(ctypes.Structure):
    """What one process has to do with it: operations that are being tried again just now, and how many there were."""

    _fields_ = (("process", ctypes.c_int32), ("held_up", ctypes.c_int32), ("retried", ctypes.c_int32))


class _Memory(ctypes.Structure):
    """When the trouble began (monotonic, 0 without), whether it is told, and of writes, and what else was said."""

    _fields_ = (
        ("since", ctypes.c_double),
        ("is_told", ctypes.c_bool),
        ("of_writes", ctypes.c_bool),
        ("said", ctypes.c_uint8),
        ("slots", _Slot * SLOTS),
    )


class _Record:
    """The trouble with one database, of this process, those that it was forked from, and those that it forks.

    Each process changes its own slot only. Should two begin or end an outage in the same instant, both tell it.
    """

    def __init__(self) -> None:
        self.memory = _Memory.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Memory)))
        self.begin()
        _all.add(self)

    def begin(self) -> None:
        """In a process of its own, where a thread of the parent may have held the lock."""
        self.lock = threading.Lock()

    @property
    def slot(self) -> _Slot:
        process = os.getpid()
        slot: _Slot = self.memory.slots[process % SLOTS]
        if slot.process != process:
            slot.process, slot.held_up, slot.retried = process, 0, 0
        return slot

    @property
    def holds_up(self) -> bool:
        """Whether an operation is being tried again. A process that was killed has left its own behind."""
        return any(slot.held_up > 0 and _is_alive(slot.process) for slot in self.memory.slots)

    def reset(self) -> int:
        """All is well; return how many operations were tried again."""
        self.memory.since, self.memory.is_told, self.memory.of_writes, self.memory.said = 0, False, False, 0
        retried: int = sum(slot.retried for slot in self.memory.slots)
        for slot in self.memory.slots:
            slot.retried = 0
        return retried


_all: WeakSet[_Record] = WeakSet()
#: The records that somebody has, by the URL of the database.
_records: WeakValueDictionary[str, _Record] = WeakValueDictionary()


def _begin() -> None:
    for record in list(_all):
        record.begin()


os.register_at_fork(after_in_child=_begin)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Outage:
    """What one backend tells, and asks to be told, of trouble with its database.

    Args:
        url: URL of the database.
        name: the same, as it may be shown.
        writes: how long results are tried again.
        spool: where they are kept then, if anywhere.
    """

    def __init__(self, url: str, name: str, writes: Policy, spool: Path | None = None) -> None:
        self._record = _records.get(url) or _records.setdefault(url, _Record())
        self._name, self._writes, self._spool = name, writes, spool

    def failed(
        self, error: BaseException, began: float | None = None, *, writes: bool = False, at_once: bool = False
    ) -> None:
        """Something has failed for a reason that passes. What has lasted for a second is told, or all ``at_once``.

        ``began`` is when it was tried first (monotonic).
        """
        memory, now = self._record.memory, time.monotonic()
        with self._record.lock:
            memory.since = min(memory.since or now, began or now)
            memory.of_writes = memory.of_writes or writes
            if memory.is_told or (now - memory.since < SHORT and not at_once):
                return
            memory.is_told, since = True, time.time() - (now - memory.since)
        logger.warning(
            "trouble with the result database %s since %s (%s): %s. Who waits for a result goes on waiting.",
            *(self._name, _clock(since), describe(error), self._plan(since)),
        )

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """An operation is being tried again during the block: as long, the trouble is not over."""
        with self._record.lock:
            self._record.slot.held_up += 1
        try:
            yield
        finally:
            with self._record.lock:
                self._record.slot.held_up -= 1

    def retried(self) -> None:
        """An operation is tried again for the first time."""
        with self._record.lock:
            self._record.slot.retried += 1

    def is_first(self, what: int) -> bool:
        """Whether nothing of this kind was told since all was well. Something that was to be written has failed."""
        memory = self._record.memory
        with self._record.lock:
            memory.since, memory.of_writes = memory.since or time.monotonic(), True
            is_first = not memory.said & what
            memory.said |= what
        return is_first

    def answered(self, *, writes: bool = False) -> None:
        """The database has done what it was asked. If it did not before, that is over: of writes, by a write only."""
        memory = self._record.memory
        if not memory.since:
            return
        with self._record.lock:
            if not memory.since or (memory.of_writes and not writes) or self._record.holds_up:
                return
            lasted, is_told, retried = time.monotonic() - memory.since, memory.is_told, self._record.reset()
        if is_told:
            logger.warning(
                "the result database %s is well again, after %.1f s: %d operations were tried again",
                *(self._name, lasted, retried),
            )

    def _plan(self, since: float) -> str:
        retries, window = self._writes.retries, self._writes.window
        end = f"kept in the spool {self._spool}" if self._spool else "given up (database_spool_dir would keep it)"
        if not retries or not window:
            return f"each result is {end}, and not tried again"
        if window != math.inf:
            return f"each result is tried again for {window:g} s, the first until {_clock(since + window)}, then {end}"
        if retries != math.inf:
            return f"each result is tried again {retries:g} times, then {end}"
        return "each result is tried again until it is stored"


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%H:%M:%S} UTC"
