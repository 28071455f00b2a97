"""Store what waits, in order, by one process at a time."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from celery_sql_results.foreign import escaping
from celery_sql_results.models import Models
from celery_sql_results.writing.entry import Entry
from celery_sql_results.writing.retry import Failed, attempt
from celery_sql_results.writing.still import still
from celery_sql_results.writing.verdict import Verdict

from . import files
from .directory import Directory

__all__ = ["Replay"]

logger = escaping(logging.getLogger(__name__))


class Replay:
    """Stores the entries of a spool, and removes each when it is stored.

    An entry that cannot be read, or whose content the database refuses, is put aside. One with an error that is about
    no other entry is left.

    Args:
        directory: the files.
        models: the tables that the entries are for.
        restore: stores an entry, or raises; it must be safe to repeat.
        judge: tells what an error means.
        reach: raises if the database cannot be read.
    """

    def __init__(
        self,
        directory: Directory,
        models: Models,
        restore: Callable[[Entry], None],
        judge: Callable[[BaseException], Verdict],
        reach: Callable[[], object],
    ) -> None:
        self._directory = directory
        self._models = models
        self._restore = restore
        self._judge = judge
        self._reach = reach

    def __call__(self, seconds: float = float("inf")) -> bool:
        """Store what waits, for so long; return whether something may be left.

        It ends at once if another process is at it, which may not know of what was kept since it began, and after at
        least one entry otherwise.

        Raises:
            the error of an entry that others would meet as well: it and those after it stay.
            the error of one entry, when nothing else is left to do.
        """
        deadline = time.monotonic() + seconds
        failed: Failed | None = None
        with self._directory.alone() as alone, self._told() as stored:
            if not alone:
                return True
            waiting = deque(self._directory.names())
            while waiting:
                done = attempt(partial(self._store, waiting.popleft()), self._judge)
                if isinstance(done, Failed):
                    failed = self._only_this(done)
                else:
                    stored.extend(done)
                if time.monotonic() >= deadline:
                    break
        if failed is not None and not (waiting and stored):
            raise failed.error
        return bool(waiting)

    @contextmanager
    def _told(self) -> Iterator[list[str]]:
        """A list for what is stored; however the block ends, the log tells how many there were."""
        stored: list[str] = []
        try:
            yield stored
        finally:
            if stored:
                logger.info("stored %d results of the spool %s", len(stored), self._directory.path)

    def _only_this(self, failed: Failed) -> Failed:
        """A failure that is about one entry only: it does not pass, and yet the database can be read."""
        if failed.verdict.time_limit or failed.verdict.passes:
            raise failed.error
        with still:
            self._reach()
        return failed

    def _store(self, name: str) -> list[str] | Failed:
        """The entry, if it is stored now; or what went wrong that is not its fault."""
        try:
            found = files.loads(self._directory.read(name), self._models)
        except FileNotFoundError:  # an operator took it away
            return []
        except files.Unreadable as error:
            self._reject(name, str(error))
            return []
        with still:
            failed = attempt(lambda: self._restore(found), self._judge)
        if isinstance(failed, Failed):
            if failed.verdict.refusal is None:
                return failed
            self._reject(name, failed.verdict.refusal)
            return []
        self._directory.remove(name)
        return [name]

    def _reject(self, name: str, reason: str) -> None:
        path = self._directory.path
        try:
            kept = self._directory.reject(name)
        except OSError as error:
            logger.error("%s/%s can never be stored (%s), and not be put aside (%s)", path, name, reason, error)
        else:
            logger.error("an entry of the spool can never be stored (%s): it is kept as %s", reason, kept)
