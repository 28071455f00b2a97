"""What a backend has of the looker that all share who wait on the same tables: until it is closed or collected."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any
from weakref import WeakSet, finalize

from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results.writing import Late, Retries, bounded

from .looker import Looker
from .subscription import Subscription

__all__ = ["Share", "when_closed"]

#: Seconds that the first look of a wait may take, however short its timeout: a timeout of 0 looks once.
LOOK = 1.0
#: First looks of one backend that are under way at the same time; of a silent database, each would leave a thread.
MOST_LOOKS, SLICE = 32, 0.005
#: Seconds for which an end is awaited of threads that nobody needs: they close a connection, which takes milliseconds.
ENDED = 5.0


class Share:
    """What waits through one backend.

    Args:
        find: finds what looks for all who wait on the same tables, which it makes ready if they are not.
        retries: repeats what passes.
        is_bounded: whether the database may fall silent, so that a timeout has to be kept without its help.
    """

    def __init__(self, find: Callable[[], Looker], retries: Retries, is_bounded: bool) -> None:
        self._find = find
        self._retries = retries
        self._is_bounded = is_bounded
        #: What was found, and how to leave it; more than once, if threads have asked at the same time.
        self._held: list[tuple[Looker, Callable[[], object]]] = []
        #: The process of each first look that is under way: a fork takes none along.
        self._looks: list[int] = []

    @property
    def found(self) -> Looker | None:
        """:attr:`looker`, if somebody has waited through this backend."""
        return next((looker for looker, _ in self._held), None)

    @property
    def looker(self) -> Looker:
        """What looks for those who wait through this backend."""
        found = self.found
        if found is None:
            found, user = self._find(), object()
            found.join(user)
            leave = finalize(self, found.leave, user)
            leave.atexit = False
            self._held.append((found, leave))
        return found

    def close(self) -> None:
        """Let go of it. Who sits through a wait gets his result all the same, and the next wait begins anew."""
        held, self._held = self._held, []
        for _, leave in held:
            leave()

    def let_go(self) -> None:
        """:meth:`close`, and wait for threads that nobody needs any more: until then they hold connections."""
        looker, until = self.found, time.monotonic() + ENDED
        threads = looker.threads if looker else []
        self.close()
        for thread in threads:
            while (
                looker and not (looker.is_used or looker.is_needed) and thread.is_alive() and time.monotonic() < until
            ):
                thread.join(SLICE)

    def within(self, deadline: float | None) -> Looker:
        """:attr:`looker`, tried until a time (monotonic).

        Raises:
            celery.exceptions.TimeoutError: the database could not be reached until then.
        """
        found = self.found
        if found is not None:
            return found
        window = math.inf if deadline is None else deadline - time.monotonic()
        policy = self._retries.policy.reads._replace(retries=math.inf, window=window)
        try:
            return self._retries.read("beginning to wait", lambda: self.looker, policy)
        except SQLAlchemyError as error:
            if not self._retries.judge(error).passes:
                raise
            raise CeleryTimeoutError("The result database could not be reached in time.") from error

    def begin(self, wait: Subscription, deadline: float | None) -> None:
        """Begin a wait. What is there already can be taken then, and the database keeps nobody longer than he wants.

        Raises:
            celery.exceptions.TimeoutError: it did not answer until the ``deadline``.
            RuntimeError: this is the thread that would be waited for.
        """
        if deadline is None or not self._is_bounded:
            self._begin(wait, deadline)
        else:
            self._begin_in_time(wait, deadline, max(deadline - time.monotonic(), LOOK))
        if wait.missing and wait.looker is not None and threading.current_thread() in wait.looker.threads:
            raise RuntimeError("a callback of then() may not wait: it runs in a thread that looks for results")

    def _begin(self, wait: Subscription, deadline: float | None) -> None:
        looker = self.within(deadline)
        if deadline is None or deadline > time.monotonic():
            wait.looker = looker
            looker.begin(wait)
            return
        try:
            looker.look_once(wait)
        except SQLAlchemyError as error:
            if not self._retries.judge(error).passes:
                raise

    def _begin_in_time(self, wait: Subscription, deadline: float, seconds: float) -> None:
        until = time.monotonic() + seconds
        try:
            while self._looks.count(os.getpid()) >= MOST_LOOKS:
                if time.monotonic() > until:
                    raise Late
                time.sleep(SLICE)
            bounded(partial(self._begin_there, wait, deadline), until - time.monotonic())
        except Late:
            raise CeleryTimeoutError("The result database did not answer in time.") from None

    def _begin_there(self, wait: Subscription, deadline: float) -> None:
        process = os.getpid()
        self._looks.append(process)
        try:
            self._begin(wait, deadline)
        finally:
            self._looks.remove(process)

    def end(self, wait: Subscription) -> None:
        """End a wait, also one that is only just beginning in another thread."""
        wait.has_ended = True
        if wait.looker is not None:
            wait.looker.end(wait)


def when_closed(app: Celery, waits: Any) -> None:
    """Close the ``waits`` with their app. Celery tells nobody of that, so the app's public method does it."""
    known: WeakSet[Any] | None = vars(app).get(CLOSED_WITH)
    if known is None:
        known = WeakSet()
        setattr(app, CLOSED_WITH, known)
        app.close = MethodType(_close, app)  # type: ignore[method-assign]
    known.add(waits)


#: The attribute of an app that names what is closed with it.
CLOSED_WITH = "_celery_sql_results_closed_with"


def _close(app: Celery) -> None:
    for waits in list(getattr(app, CLOSED_WITH)):
        waits.close()
    type(app).close(app)
