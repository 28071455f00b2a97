"""Repeat what failed for a reason that passes."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from celery.utils.log import get_logger
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from celery_sql_results.settings import Policy

T = TypeVar("T")
logger = get_logger(__name__)

#: Seconds after which a pause looks whether it is still worth waiting.
SLICE = 0.25


class Failed(NamedTuple):
    """A first attempt that was made already, and when it began, by the monotonic clock."""

    error: Exception
    began: float


def never() -> bool:
    """What never gives up."""
    return False


def call(
    operation: Callable[[], T],
    *,
    name: str,
    is_transient: Callable[[BaseException], bool],
    policy: Policy,
    gives_up: Callable[[], bool] = never,
    failed: Failed | None = None,
) -> T:
    """Return what ``operation`` returns, trying again after errors that ``is_transient`` as long as ``policy`` says.

    Pauses double from the first to the longest and are jittered, so that a fleet does not come back at once; the last
    attempt is made at the end of the window. As soon as ``gives_up``, there is none more. A connection that turns out
    to be dead costs one attempt more, at once and unlogged: the pool only checks connections that were idle for a
    while. The operation must be safe to repeat. Its first attempt may have been made already, and have ``failed``.

    Raises:
        whatever ``operation`` raised last.
    """
    attempt, stale, deadline = 0, True, (failed.began if failed else time.monotonic()) + policy.window
    while True:
        try:
            if failed:
                error, failed = failed.error, None
                raise error
            return operation()
        except SQLAlchemyError as error:
            if not is_transient(error):
                raise
            if stale and isinstance(error, DBAPIError) and error.connection_invalidated:
                stale = False
                continue
            left = deadline - time.monotonic()
            if attempt >= policy.retries or left <= 0 or gives_up():
                raise
            pause = min(_pause(policy, attempt), left)
            attempt += 1
            logger.warning("%s failed (%s); retry %d in %.2f s", name, describe(error), attempt, pause)
            if not _sleep(pause, gives_up):
                raise


def _pause(policy: Policy, attempt: int) -> float:
    doubled = math.ldexp(policy.first_pause, min(attempt, 64))  # a float ends at 1,024, any pause long before
    return min(doubled, policy.longest_pause) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def _sleep(pause: float, gives_up: Callable[[], bool]) -> bool:
    """Sleep, in slices; ``False`` as soon as ``gives_up``."""
    while pause > 0:
        time.sleep(min(pause, SLICE))
        if gives_up():
            return False
        pause -= SLICE
    return True


def describe(error: BaseException) -> str:
    """The first line of the driver's own words: others may quote a row, and SQLAlchemy's add the statement."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {str(original).strip().partition(chr(10))[0].rstrip()}"
