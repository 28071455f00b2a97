"""What coroutines await: a result, a group, whatever is ready first, each state of a task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from celery import states
from celery.result import ResultSet, assert_will_not_block

from celery_sql_results.ids import asked_id
from celery_sql_results.payload import pending, value_of

from .leaves import leaves
from .loops import LoopWait, looker_of
from .waits import NOBODYS, Waits

__all__ = ["Seen", "as_completed", "join", "seen"]

Meta = dict[str, Any]


async def _metas(
    backend: Any, task_ids: Collection[str], deadline: float | None, every_state: bool = False
) -> AsyncGenerator[Meta, None]:
    """Yield the meta of each task as it is ready; with ``every_state``, also those of other states, if it has none yet.

    However it ends, nothing is left behind.
    """
    waits: Waits = backend.waits
    cached = waits.cached(task_ids)
    for meta in cached.values():
        yield meta
    missing = [task_id for task_id in task_ids if task_id not in cached]
    if not missing:
        return
    looker = await looker_of(waits.share, deadline)
    wait = LoopWait(missing, every_state)
    try:
        await wait.begin(looker)
        unseen = set(missing)
        while wait.untaken:
            for row in await wait.arrivals(deadline):
                unseen.discard(row["task_id"])
                yield waits.read(row)
            while every_state and unseen:  # by the first look
                yield pending(unseen.pop())
    finally:
        waits.share.end(wait)


class _Awaited:
    """Single results of our backends that are awaited, and the tasks before them, whose errors are theirs.

    Args:
        results: single results.
        follow: whether errors of tasks before them count.
    """

    def __init__(self, results: Sequence[Any], follow: bool) -> None:
        self.missing: dict[Any, dict[str, list[Any]]] = {}
        self.before: dict[Any, dict[str, list[Any]]] = {}
        for result in results:
            self._add(self.missing, result)
            for parent in leaves(list(result._parents()) if follow else ()):
                if not parent._cache and hasattr(parent.backend, "awaiting"):
                    self._add(self.before, parent)

    @staticmethod
    def _add(to: dict[Any, dict[str, list[Any]]], result: Any) -> None:
        to.setdefault(result.backend, {}).setdefault(asked_id(result.id) or NOBODYS, []).append(result)

    async def arrive(self, deadline: float | None) -> AsyncGenerator[Any, None]:
        """Yield each result as it is ready.

        Raises:
            what a task before one of them has raised.
        """
        sources = [self._of(backend, deadline) for backend in self.missing]
        async with aclosing(_merged(sources) if sources[1:] else sources[0]) as arrivals:
            async for result in arrivals:
                yield result

    async def _of(self, backend: Any, deadline: float | None) -> AsyncGenerator[Any, None]:
        missing, before = self.missing[backend], self.before.get(backend, {})
        async with aclosing(_metas(backend, {*missing, *before}, deadline)) as metas:
            async for meta in metas:
                task_id = meta["task_id"]
                for parent in before.get(task_id, ()):
                    _keep(parent, meta)
                    parent.maybe_throw()
                for result in missing.pop(task_id, ()):
                    _keep(result, meta)
                    yield result
                if not missing:
                    return


def _keep(result: Any, meta: Meta) -> None:
    value_of(meta)  # raises what keeps it from being read
    result._maybe_set_cache(meta)


async def _merged(sources: Sequence[AsyncGenerator[Any, None]]) -> AsyncGenerator[Any, None]:
    """Yield what comes of several iterators, as it comes. As a rule there is one: that of the app's backend."""
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def drain(source: AsyncGenerator[Any, None]) -> None:
        async with aclosing(source):
            async for item in source:
                queue.put_nowait(item)

    tasks = [asyncio.ensure_future(drain(source)) for source in sources]
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    left = len(tasks)
    try:
        while left:
            item = await queue.get()
            if isinstance(item, asyncio.Task):
                left -= 1
                item.result()
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def as_completed(
    results: Iterable[Any], timeout: float | None = None, *, disable_sync_subtasks: bool = True
) -> AsyncGenerator[Any, None]:
    """Yield the single results of some results and groups, each as soon as it is ready, failed or not.

    Args:
        results: results; of groups and sets, their members.
        timeout: seconds until it ends with an error; ``None`` waits for ever, 0 takes what is there.
        disable_sync_subtasks: whether a task may not wait here, unless it is in ``allow_join_result``.

    Raises:
        AwaitTimeout: the time is over, and some are not ready.
    """
    if disable_sync_subtasks:
        assert_will_not_block()
    deadline = None if timeout is None else time.monotonic() + timeout
    members = list(leaves(results))
    at_hand = [each for each in members if each._cache or each.ignored]
    for result in at_hand:
        yield result
    ours = [each for each in members if each not in at_hand and hasattr(each.backend, "awaiting")]
    async with aclosing(_Awaited(ours, False).arrive(deadline)) as arrivals:
        async for result in arrivals:
            yield result
    for result in members:
        if result not in at_hand and result not in ours:  # of another backend: it keeps a thread meanwhile
            await asyncio.to_thread(result.get, timeout=timeout, propagate=False, disable_sync_subtasks=False)
            yield result


async def join(
    result: Any,
    timeout: float | None = None,
    propagate: bool = True,
    disable_sync_subtasks: bool = True,
    follow_parents: bool = True,
) -> Any:
    """The value of a result, or those of a group in their order, when they are ready; see ``AsyncResult.aget``."""
    if disable_sync_subtasks:
        assert_will_not_block()
    deadline = None if timeout is None else time.monotonic() + timeout
    members = [each for each in leaves([result]) if not each.ignored]
    for each in members:
        _throw(each, propagate)
    ours = [each for each in members if not each._cache and hasattr(each.backend, "awaiting")]
    async with aclosing(_Awaited(ours, follow_parents and propagate).arrive(deadline)) as arrivals:
        async for each in arrivals:
            _throw(each, propagate)
    for each in members:
        if not each._cache and not hasattr(each.backend, "awaiting"):
            await asyncio.to_thread(each.get, timeout=timeout, propagate=propagate, disable_sync_subtasks=False)
    return _value(result)


def _throw(result: Any, propagate: bool) -> None:
    if propagate and result._cache:
        result.maybe_throw()


def _value(result: Any) -> Any:
    if isinstance(result, ResultSet):
        return [_value(inner) for inner in result]
    return None if result.ignored else result.result


class Seen(NamedTuple):
    """What was seen of a task.

    Attributes:
        state: its state.
        info: what was stored with it: the meta of a progress, the value, the exception.
    """

    state: str
    info: Any


async def seen(result: Any, timeout: float | None = None) -> AsyncGenerator[Seen, None]:
    """Yield each state of a task that is seen, with what was stored, from the one that it has now to its last.

    Of states that follow one another at once, some may not be seen: a row has one state.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    id_ = asked_id(result.id) or NOBODYS
    if result._cache:
        yield _of_meta(result._cache)
        return
    async with aclosing(_metas(result.backend, {id_}, deadline, every_state=True)) as metas:
        async for meta in metas:
            if meta["status"] in states.READY_STATES:
                _keep(result, meta)
            yield _of_meta(meta)


def _of_meta(meta: Mapping[str, Any]) -> Seen:
    return Seen(meta["status"], meta["result"])
