"""Repeat what failed for a reason that passes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from celery.utils.log import get_logger
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

T = TypeVar("T")
logger = get_logger(__name__)


def call(
    operation: Callable[[], T],
    *,
    name: str,
    is_transient: Callable[[BaseException], bool],
    retries: float,
    first_pause: float,
    longest_pause: float,
) -> T:
    """Return what ``operation`` returns, trying again up to ``retries`` times after errors that ``is_transient``.

    Pauses, in seconds, double from ``first_pause`` to ``longest_pause`` and are jittered, so that a fleet does not come
    back at once. A connection that turns out to be dead costs one attempt more, at once and unlogged: the pool only
    checks connections that were idle for a while. The operation must be safe to repeat.

    Raises:
        whatever ``operation`` raised last.
    """
    attempt, stale = 0, True
    while True:
        try:
            return operation()
        except SQLAlchemyError as error:
            if not is_transient(error):
                raise
            if stale and isinstance(error, DBAPIError) and error.connection_invalidated:
                stale = False
                continue
            if attempt >= retries:
                raise
            pause = min(first_pause * 2**attempt, longest_pause) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            attempt += 1
            logger.warning("%s failed (%s); retry %d in %.2f s", name, _describe(error), attempt, pause)
            time.sleep(pause)


def _describe(error: BaseException) -> str:
    """The driver's own words in one line: SQLAlchemy's add the statement, which nobody needs here."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {' '.join(str(original).split())}"
