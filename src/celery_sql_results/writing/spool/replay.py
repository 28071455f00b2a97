"""Store what waits, in order, by one process at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celery.utils.log import get_logger

from celery_sql_results.models import Models

from . import entry
from .directory import Directory

__all__ = ["replay"]

logger = get_logger(__name__)


def replay(
    directory: Directory,
    models: Models,
    restore: Callable[[entry.Entry], None],
    refusal: Callable[[BaseException], str | None],
    only_this: Callable[[Exception], Exception],
    seconds: float,
) -> bool:
    """Store the entries with ``restore``, which must be safe to repeat, and remove each when that has returned.

    An entry that cannot be read, or whose content the database refuses, is put aside: ``refusal`` gives the reason, or
    ``None`` for another error. One with an error that is about no other entry is left: ``only_this`` returns such an
    error, and raises others. It ends when ``seconds`` are over, at once if another process is at it, and after at least
    one entry otherwise. Return whether something may be left: the other may not know of what was kept since it began.

    Raises:
        what ``only_this`` has raised: that entry and those after it stay.
        what it has returned last, when nothing else is left to do.
    """
    deadline, failed = time.monotonic() + seconds, None
    with directory.alone() as alone, _told(directory) as stored:
        if not alone:
            return True
        waiting = deque(directory.names())
        while waiting:
            try:
                stored.extend(_store(directory, waiting.popleft(), models, restore, refusal))
            except Exception as error:  # noqa: BLE001 - a driver may raise anything, and others get their turn
                failed = only_this(error)
            if time.monotonic() >= deadline:
                break
    if failed is not None and not (waiting and stored):
        raise failed
    return bool(waiting)


@contextmanager
def _told(directory: Directory) -> Iterator[list[str]]:
    """A list for what is stored; however the block ends, the log tells how many there were."""
    stored: list[str] = []
    try:
        yield stored
    finally:
        if stored:
            logger.info("stored %d results of the spool %s", len(stored), directory.path)


def _store(
    directory: Directory,
    name: str,
    models: Models,
    restore: Callable[[entry.Entry], None],
    refusal: Callable[[BaseException], str | None],
) -> list[str]:
    """The entry, if it is stored now."""
    try:
        found = entry.loads(directory.read(name), models)
    except FileNotFoundError:  # an operator took it away
        return []
    except entry.Unreadable as error:
        _reject(directory, name, str(error))
        return []
    try:
        restore(found)
    except Exception as error:  # what is not the entry's fault is raised again
        reason = refusal(error)
        if reason is None:
            raise
        _reject(directory, name, reason)
        return []
    directory.remove(name)
    return [name]


def _reject(directory: Directory, name: str, reason: str) -> None:
    try:
        kept = directory.reject(name)
    except OSError as error:
        logger.error("%s/%s can never be stored (%s), and not be put aside (%s)", directory.path, name, reason, error)
    else:
        logger.error("an entry of the spool can never be stored (%s): it is kept as %s", reason, kept)
