"""Waits in event loops: the looker's thread serves them too, so that none needs a thread or a driver of its own.

A wait has a future of its loop. Whoever finds a row hands it to the loop, which fulfils the future.
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

__all__ = ["LoopWait", "looker_of"]

#: Waits that one turn of a loop is kept busy with, so that nothing else in it waits for long: a millisecond or so.
AT_ONCE = 25
#: Seconds after which it is looked anew whether anybody still waits for a database that cannot be reached.
PATIENCE = 2.0


class _Post:
    """Hands what threads have found to the waits of one event loop, a few at a time.

    The loop is not kept alive by this, and one that has ended is told nothing.
    """

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
        """Wait for one's turn to begin: of a thousand waits that begin at once, some do so in each turn of the loop."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._begin_anew)
        self._begun += 1
        if self._begun > AT_ONCE:
            turn: asyncio.Future[None] = loop.create_future()
            self.put(lambda: _fulfil(turn))
            await turn

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


_posts: WeakKeyDictionary[asyncio.AbstractEventLoop, _Post] = WeakKeyDictionary()


def _post() -> _Post:
    loop = asyncio.get_running_loop()
    found = _posts.get(loop)
    if found is None:
        found = _posts[loop] = _Post(loop)
    return found


class LoopWait(Subscription):
    """A wait that a coroutine sits through."""

    def __init__(self, task_ids: Iterable[str], every_state: bool) -> None:
        super().__init__(task_ids, states.READY_STATES, every_state)
        self._post = _post()
        self._arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_told = self.was_looked_for = False

    async def begin(self, looker: Looker) -> None:
        """Begin, and keep nobody else in the loop for long."""
        await self._post.turn()
        looker.enlist(self)

    @property
    def is_wanted(self) -> bool:
        return self._post.is_open

    def looked_for(self) -> None:
        if not self.was_looked_for:
            self.was_looked_for = True
            self._arrived()

    def _arrived(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._post.put(self._fulfil)

    def _fulfil(self) -> None:
        _fulfil(self._arrival)

    async def arrivals(self, deadline: float | None) -> list[Row]:
        """Wait until something comes, or the first look has found nothing, and take what there is.

        Raises:
            AwaitTimeout: the ``deadline`` is over.
            what keeps the database from answering.
        """
        until = deadline if self.was_looked_for or deadline is None else max(deadline, self.since + LOOK)
        left = None if until is None else max(until - time.monotonic(), 0.0)
        done, _ = await asyncio.wait([self._arrival], timeout=left)
        if not done:
            raise AwaitTimeout("The operation timed out.")
        self._arrival = asyncio.get_running_loop().create_future()
        self._is_told = False  # first: what comes from now on tells anew
        return list(self.take(0.0))


async def looker_of(share: Share, deadline: float | None) -> Looker:
    """What looks for those who wait through a backend. The first time, a thread connects: the loop must not wait."""
    while (found := share.found) is None:
        beginning, loop = _post().beginning, asyncio.get_running_loop()
        future = beginning.get(share)
        if future is None or future.done():
            future = beginning[share] = loop.create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody need be there
            args = (share, _post(), future)
            threading.Thread(target=_begin, args=args, name="celery-sql-results-begin", daemon=True).start()
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        await asyncio.wait([future], timeout=left)
        if future.done() and not isinstance(future.exception(), CeleryTimeoutError):
            return future.result()
        if deadline is not None and time.monotonic() >= deadline:
            raise AwaitTimeout("The result database could not be reached in time.")
    return found


def _begin(share: Share, post: _Post, future: asyncio.Future[Looker]) -> None:
    found: Looker | None = None
    with caught() as failure:  # a driver may raise anything
        found = share.within(time.monotonic() + PATIENCE)
    error = failure.error

    def tell() -> None:
        if not future.done():
            future.set_exception(error) if error is not None else future.set_result(found)  # type: ignore[arg-type]

    post.put(tell)


def _fulfil(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
