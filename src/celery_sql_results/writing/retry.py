"""Repeat what failed for a reason that passes."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple, TypeVar

from celery_sql_results.foreign import escaping
from celery_sql_results.settings import Policy, RetryPolicy

from .described import describe
from .outage import Outage
from .verdict import Verdict

__all__ = ["Failed", "Retries", "attempt", "never"]

T = TypeVar("T")
logger = escaping(logging.getLogger(__name__))

#: Seconds after which a pause looks whether it is still worth waiting.
SLICE = 0.25
#: How often whoever calls wants an operation to be tried again at most.
_most_retries: ContextVar[float] = ContextVar("celery_sql_results_most_retries", default=math.inf)


class Failed(NamedTuple):
    """An operation that has failed: its last error, what that means, and when the first attempt began (monotonic)."""

    error: Exception
    verdict: Verdict
    began: float


def never() -> bool:
    """What never gives up."""
    return False


def attempt(
    operation: Callable[[], T], judge: Callable[[BaseException], Verdict], began: float | None = None
) -> T | Failed:
    """What ``operation`` returns, or how it failed. The one place where an error on the way to the database is judged.

    ``began`` is when the first attempt did, if this is another one.
    """
    began = time.monotonic() if began is None else began
    try:
        return operation()
    except Exception as error:  # noqa: BLE001 - a driver may raise anything; a time limit has a verdict as well
        return Failed(error, judge(error), began)


class Retries:
    """Tries operations again as the settings of one backend say.

    Args:
        judge: tells what an error means.
        policy: how often and how long writes and reads are tried again.
        outage: is told of what fails, and of what succeeds afterwards.
    """

    def __init__(self, judge: Callable[[BaseException], Verdict], policy: RetryPolicy, outage: Outage) -> None:
        self.judge = judge
        self.policy = policy
        self.outage = outage

    @contextmanager
    def at_most(self, retries: float) -> Iterator[None]:
        """Bound, for the length of the block and this thread, how often an operation is tried again."""
        token = _most_retries.set(retries)
        try:
            yield
        finally:
            _most_retries.reset(token)

    def read(self, name: str, operation: Callable[[], T], policy: Policy | None = None) -> T:
        """What ``operation`` returns, tried again as reads are.

        Raises:
            whatever it raised last.
        """
        done = attempt(operation, self.judge)  # nearly always that is all
        if isinstance(done, Failed):
            done = self.insist(name, operation, policy or self.policy.reads, failed=done)
        return _value(done)

    def write(self, name: str, operation: Callable[[], T], gives_up: Callable[[], bool] = never) -> T:
        """What ``operation`` returns, tried again as writes are; after ``gives_up``, no more.

        Raises:
            whatever it raised last.
        """
        return _value(self.insist(name, operation, self.policy.writes, gives_up))

    def insist(
        self,
        name: str,
        operation: Callable[[], T],
        policy: Policy,
        gives_up: Callable[[], bool] = never,
        failed: Failed | None = None,
        judge: Callable[[BaseException], Verdict] | None = None,
    ) -> T | Failed:
        """What ``operation`` returns, tried again after errors that pass; or how it failed in the end.

        Pauses double from the first to the longest and are jittered, so that a fleet does not come back at once; the
        last attempt is made at the end of the window. A connection that turns out to be dead costs one attempt more, at
        once and untold: the pool only checks connections that were idle for a while. The operation must be safe to
        repeat. Its first attempt may have been made already, and have ``failed``.
        """
        judge, writes = judge or self.judge, policy is self.policy.writes
        done: T | Failed = attempt(operation, judge) if failed is None else failed
        if isinstance(done, Failed) and done.verdict.passes and done.verdict.lost:
            done = attempt(operation, judge, done.began)
        if not isinstance(done, Failed) or not done.verdict.passes:
            return done
        with self.outage.held_up():
            done = self._again(name, partial(attempt, operation, judge, done.began), policy, gives_up, done)
        if not isinstance(done, Failed):
            self.outage.answered(writes=writes)
        return done

    def _again(
        self,
        name: str,
        attempted: Callable[[], T | Failed],
        policy: Policy,
        gives_up: Callable[[], bool],
        failed: Failed,
    ) -> T | Failed:
        retry, most = 0, min(policy.retries, _most_retries.get())
        done: T | Failed = failed
        while isinstance(done, Failed) and done.verdict.passes:
            self.outage.failed(done.error, done.began, writes=policy is self.policy.writes)
            left = done.began + policy.window - time.monotonic()
            if retry >= most or left <= 0 or gives_up():
                break
            if not retry:
                self.outage.retried()
            pause = min(_pause(policy, retry), left)
            retry += 1
            logger.debug("%s failed (%s); retry %d in %.2f s", name, describe(done.error), retry, pause)
            if not _sleep(pause, gives_up):
                break
            done = attempted()
        return done


def _value(done: T | Failed) -> T:
    if isinstance(done, Failed):
        raise done.error
    return done


def _pause(policy: Policy, retry: int) -> float:
    doubled = math.ldexp(policy.first_pause, min(retry, 64))  # a float ends at 1,024, any pause long before
    return min(doubled, policy.longest_pause) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def _sleep(pause: float, gives_up: Callable[[], bool]) -> bool:
    """Sleep, in slices; ``False`` as soon as ``gives_up``."""
    while pause > 0:
        time.sleep(min(pause, SLICE))
        if gives_up():
            return False
        pause -= SLICE
    return True
