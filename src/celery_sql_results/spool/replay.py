"""Store what waits, in order, by one process at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

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
    seconds: float,
) -> bool:
    """Store the entries with ``restore``, which must be safe to repeat, and remove each when that has returned.

    An entry that cannot be read, or whose content the database refuses, is put aside: ``refusal`` gives the reason, or
    ``None`` for another error. It ends when ``seconds`` are over, at once if another process is at it, and after at
    least one entry otherwise. Return whether there is more to do for this one.

    Raises:
        whatever ``restore`` raised, unless it is a refusal; that entry and those after it stay.
    """
    deadline, stored = time.monotonic() + seconds, 0
    with directory.alone() as alone:
        names = directory.names() if alone else []
        try:
            for done, name in enumerate(names, 1):
                stored += _store(directory, name, models, restore, refusal)
                if time.monotonic() >= deadline:
                    return done < len(names)
        finally:
            if stored:
                logger.info(
                    "stored %d results of the spool %s, %d wait", stored, directory.path, len(directory.names())
                )
    return False


def _store(
    directory: Directory,
    name: str,
    models: Models,
    restore: Callable[[entry.Entry], None],
    refusal: Callable[[BaseException], str | None],
) -> bool:
    try:
        found = entry.loads(directory.read(name), models)
    except FileNotFoundError:  # an operator took it away
        return False
    except (entry.Unreadable, OSError) as error:
        _reject(directory, name, str(error))
        return False
    try:
        restore(found)
    except Exception as error:  # what is not the entry's fault is raised again
        reason = refusal(error)
        if reason is None:
            raise
        _reject(directory, name, reason)
        return False
    directory.remove(name)
    return True


def _reject(directory: Directory, name: str, reason: str) -> None:
    try:
        kept = directory.reject(name)
    except OSError as error:
        logger.error("%s/%s can never be stored (%s), and not be put aside (%s)", directory.path, name, reason, error)
    else:
        logger.error("an entry of the spool can never be stored (%s): it is kept as %s", reason, kept)
