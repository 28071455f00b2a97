"""Waits in event loops: the looker's thread serves them too, so that none needs a thread or a driver of its own.

A wait has a future of its loop. Whoever finds a row hands it to the loop, which fulfils the future. Nothing here keeps
a loop alive that has ended: its waits are dropped with the next look.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary, ref

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError

from celery_sql_results.boundaries import caught
from celery_sql_results.errors import AwaitTimeout

from .looker import Looker
from .share import LOOK, Share
from .subscription import Row, Subscription

__all__ = ["AT_ONCE", "LoopWait", "looker_of", "turn"]

#: Waits that one turn of a loop is kept busy with, so that nothing else in it waits for long: a millisecond or so.
AT_ONCE = 10
#: Seconds after which it is looked anew whether anybody still waits for a database that cannot be reached.
PATIENCE = 2.0


class _Post:
    """Hands what threads have found to the waits of one event loop, a few at a time; to none if it has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._arrived: deque[Callable[[], None]] = deque()
        self._is_busy = False
        #: Waits that have begun in this turn of the loop.
        self._begun = 0
        #: Those who wait for the first connection of a backend.
        self.beginning: WeakKeyDictionary[Share, asyncio.Future[Looker]] = WeakKeyDictionary()

    @property
    def is_open(self) -> bool:
        """Whether the loop is still there."""
        loop = self._loop()
        return loop is not None and not loop.is_closed()

    def put(self, call: Callable[[], None]) -> None:
        """Call something in the loop; from any thread."""
        self._arrived.append(call)
        if not self._is_busy:
            self._is_busy = True
            loop = self._loop()
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop has ended, and with it whoever waited
                self._arrived.clear()

    async def turn(self) -> None:
        """Wait for one's turn to begin."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._begin_anew)
        self._begun += 1
        if self._begun > AT_ONCE:
            begins: asyncio.Future[None] = loop.create_future()
            self.put(lambda: _fulfil(begins))
            await begins

    def _begin_anew(self) -> None:
        self._begun = 0

    def _deliver(self) -> None:
        self._is_busy = False  # first: whoever puts something from now on wakes the loop
        for _ in range(AT_ONCE):
            if not self._arrived:
                return
            self._arrived.popleft()()
        self._is_busy = True
        asyncio.get_running_loop().call_soon(self._deliver)


#: The post of each loop that has one, for as long as somebody needs it.
_posts: WeakKeyDictionary[asyncio.AbstractEventLoop, ref[_Post]] = WeakKeyDictionary()


def _post() -> _Post:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "no event loop of asyncio runs here, and results can be awaited in no other: under trio, call "
            "trio.to_thread.run_sync(result.get)"
        ) from None
    known = _posts.get(loop)
    found = known() if known else None
    if found is None:
        found = _Post(loop)
        _posts[loop] = ref(found)
    return found


async def turn() -> None:
    """Wait for one's turn to begin: of a thousand waits that begin at once, some do so in each turn of the loop.

    Raises:
        RuntimeError: no loop runs here that can wait.
    """
    await _post().turn()


class LoopWait(Subscription):
    """A wait that a coroutine sits through."""

    def __init__(self, task_ids: Iterable[str], every_state: bool, bare: frozenset[str]) -> None:
        super().__init__(task_ids, states.READY_STATES, every_state, bare)
        self._post = _post()
        #: It keeps the task of whoever waits alive, as what a task waits for should: asyncio itself does not.
        self._arrival: asyncio.Future[None] | None = None
        self._was_looked_for = self._knows = False
        self._is_told = True

    @property
    def is_wanted(self) -> bool:
        return self._post.is_open

    def looked_for(self) -> None:
        if not self._was_looked_for:
            self._was_looked_for = True
            self._arrived()

    def _arrived(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._post.put(self._fulfil)

    def _fulfil(self) -> None:
        if self._arrival is not None:
            _fulfil(self._arrival)

    async def arrivals(self, deadline: float | None) -> list[Row]:
        """What has come since; waits until something comes, or the first look has found nothing.

        Raises:
            AwaitTimeout: the ``deadline`` is over.
            what keeps the database from answering.
        """
        arrival = self._arrival = asyncio.get_running_loop().create_future()
        self._is_told = False  # first: what comes from now on tells
        rows = list(self.take(0.0))
        if rows or self._is_first():
            return rows
        until = deadline if self._knows or deadline is None else max(deadline, self.since + LOOK)
        left = None if until is None else max(until - time.monotonic(), 0.0)
        done, _ = await asyncio.wait([arrival], timeout=left)
        rows = list(self.take(0.0))
        if not done and not rows:
            raise AwaitTimeout("The operation timed out.")
        self._is_first()
        return rows

    def _is_first(self) -> bool:
        """Whether it is news that the first look is over."""
        is_news = self._was_looked_for and not self._knows
        self._knows = self._was_looked_for
        return is_news


async def looker_of(share: Share, deadline: float | None) -> Looker:
    """What looks for those who wait through a backend. The first time, a thread connects: the loop must not wait.

    Raises:
        AwaitTimeout: the ``deadline`` is over, and so is the time that a first look may take.
        what keeps the database from being used.
    """
    post, first = _post(), time.monotonic() + LOOK
    while (found := share.found) is None:
        future = post.beginning.get(share)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            args = (share, post, future)
            threading.Thread(target=_begin, args=args, name="celery-sql-results-begin", daemon=True).start()
            post.beginning[share] = future
        left = None if deadline is None else max(max(deadline, first) - time.monotonic(), 0.0)
        await asyncio.wait([future], timeout=left)
        if future.done() and not isinstance(future.exception(), CeleryTimeoutError):
            return future.result()
        if left is not None and time.monotonic() >= max(deadline or 0.0, first):
            raise AwaitTimeout("The result database could not be reached in time.")
    return found


def _begin(share: Share, post: _Post, future: asyncio.Future[Looker]) -> None:
    found: Looker | None = None
    with caught() as failure:  # a driver may raise anything
        found = share.within(time.monotonic() + PATIENCE)
    error = failure.error

    def tell() -> None:
        post.beginning.pop(share, None)  # it would keep the loop alive; and what failed may begin anew
        if future.done():
            return
        if error is None:
            future.set_result(found)  # type: ignore[arg-type]
        else:
            future.set_exception(error)
            future.exception()  # nobody need be there

    post.put(tell)


def _fulfil(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
