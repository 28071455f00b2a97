"""What coroutines await: a result, a group, whatever is ready first, each state of a task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import ResultSet, assert_will_not_block

from celery_sql_results.errors import AwaitTimeout
from celery_sql_results.ids import asked_id
from celery_sql_results.payload import pending, value_of

from .joining import SHORTEST
from .leaves import leaves, raise_of_parents
from .loops import AT_ONCE, LoopWait, looker_of, turn
from .waits import INTERVAL, NOBODYS, Meta, Waits

__all__ = ["Seen", "as_completed", "join", "seen"]

#: A result, and the meta that it was read from; none of one in another kind of backend.
Arrival = tuple[Any, Mapping[str, Any] | None]


async def _metas(
    backend: Any,
    task_ids: Collection[str],
    deadline: float | None,
    bare: Iterable[str] = (),
    every_state: bool = False,
) -> AsyncGenerator[Meta, None]:
    """Yield the meta of each task as it is ready; those that are found together in the order of their ids.

    However it ends, nothing is left behind.

    Args:
        backend: one of ours.
        task_ids: what is awaited.
        deadline: until when (monotonic); the first look may take a little longer.
        bare: tasks of which only id and state are wanted; they come before the others.
        every_state: whether metas of states that are not final are wanted as well, beginning with what is there.
    """
    waits: Waits = backend.waits
    order = {task_id: number for number, task_id in enumerate(dict.fromkeys((*bare, *task_ids)))}
    for meta in (cached := waits.cached(order)).values():
        yield meta
    missing = order.keys() - cached
    if not missing:
        return
    looker = await looker_of(waits.share, deadline)
    wait = LoopWait(missing, every_state, frozenset(missing.intersection(bare)))
    unseen = missing if every_state else set[str]()
    try:
        looker.enlist(wait)
        while wait.untaken:
            rows = sorted(await wait.arrivals(deadline), key=lambda row: order[row["task_id"]])
            for number, row in enumerate(rows, 1):
                unseen.discard(row["task_id"])
                yield waits.read(row) if "result" in row else dict(row)
                if not number % AT_ONCE:
                    await asyncio.sleep(0)
            while unseen:  # by the first look
                yield pending(unseen.pop())
    finally:
        waits.share.end(wait)


class _Awaited:
    """Single results that are awaited. Those that the looker cannot serve are kept in a thread.

    Args:
        results: single results.
        follow: whether errors of tasks before them count.
        deadline: until when they are awaited (monotonic).
    """

    def __init__(self, results: Iterable[Any], follow: bool, deadline: float | None) -> None:
        self._follow, self._deadline = follow, deadline
        self._missing: dict[Any, dict[str, list[Any]]] = {}
        #: Of each backend, the results that come after a task, by its id.
        self._before: dict[Any, dict[str, list[Any]]] = {}
        self._elsewhere: list[Any] = []
        for result in results:
            self._add(result, _before(result) if follow else [])

    def _add(self, result: Any, before: Sequence[Any]) -> None:
        backend = result.backend
        unknown = [parent for parent in before if not parent._cache]
        if not _is_ours(result) or any(parent.backend is not backend for parent in unknown):
            self._elsewhere.append(result)
            return
        self._missing.setdefault(backend, {}).setdefault(_id(result), []).append(result)
        for parent in unknown:
            self._before.setdefault(backend, {}).setdefault(_id(parent), []).append(result)

    async def arrive(self) -> AsyncGenerator[Arrival, None]:
        """Yield each result as it is ready, with its meta.

        Raises:
            what a task before one of them has raised.
            AwaitTimeout: the time is over.
        """
        for after in [each for missing in self._missing.values() for some in missing.values() for each in some]:
            if self._follow and any(_has_failed(parent._cache) for parent in _before(after)):
                await _raise_of_parents(after, self._deadline)
        sources = [self._of(backend) for backend in self._missing]
        sources += [self._in_thread()] if self._elsewhere else []
        if not sources:
            return
        async with aclosing(_merged(sources)) as arrivals:
            async for arrival in arrivals:
                yield arrival

    async def _of(self, backend: Any) -> AsyncGenerator[Arrival, None]:
        missing, before = self._missing[backend], self._before.get(backend, {})
        bare = [task_id for task_id in before if task_id not in missing]
        async with aclosing(_metas(backend, list(missing), self._deadline, bare)) as metas:
            async for meta in metas:
                task_id = meta["task_id"]
                arrived = missing.pop(task_id, [])
                if _has_failed(meta) and self._follow:
                    for result in (*before.get(task_id, ()), *arrived):
                        await _raise_of_parents(result, self._deadline)
                for result in arrived:
                    result._maybe_set_cache(meta)
                    yield result, meta
                if not missing:
                    return

    async def _in_thread(self) -> AsyncGenerator[Arrival, None]:
        """Await what is in other kinds of backends, or comes after such, one by one."""
        for result in self._elsewhere:
            while not await asyncio.to_thread(self._ask, result):
                pass
            yield result, None

    def _ask(self, result: Any) -> bool:
        """Wait for a result, for so short a time that no thread is left for long when nobody wants it any more."""
        left = INTERVAL if self._deadline is None else min(INTERVAL, self._deadline - time.monotonic())
        if self._follow:
            raise_of_parents([result])
        try:
            result.get(timeout=max(left, SHORTEST), propagate=False, disable_sync_subtasks=False)
        except CeleryTimeoutError as error:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                raise AwaitTimeout(*error.args) from error
            return False
        return True


async def _raise_of_parents(result: Any, deadline: float | None) -> None:
    """Raise what a task before this one has raised, the first in a chain before those after it."""
    parents, backend = _before(result), result.backend
    unknown = [parent for parent in parents if not parent._cache]
    if not parents:
        return
    if any(parent.backend is not backend or not _is_ours(parent) for parent in unknown):
        await asyncio.to_thread(raise_of_parents, [result])
        return
    found: dict[str, str] = {}
    with suppress(AwaitTimeout):  # of those that are not ready
        async for meta in _metas(backend, (), time.monotonic(), map(_id, unknown)):
            found[meta["task_id"]] = meta["status"]
    for parent in parents:
        if not parent._cache and found.get(_id(parent)) in states.PROPAGATE_STATES:
            async for meta in _metas(backend, [_id(parent)], deadline):
                parent._maybe_set_cache(meta)
        _throw(parent)


def _is_ours(result: Any) -> bool:
    return hasattr(result.backend, "awaiting")


def _id(result: Any) -> str:
    return asked_id(result.id) or NOBODYS


def _before(result: Any) -> list[Any]:
    return list(leaves(list(result._parents())[::-1]))


def _has_failed(meta: Mapping[str, Any] | None) -> bool:
    return bool(meta) and meta["status"] in states.PROPAGATE_STATES  # type: ignore[index]


async def _merged(sources: Sequence[AsyncGenerator[Arrival, None]]) -> AsyncGenerator[Arrival, None]:
    """Yield what comes of several iterators, as it comes. As a rule there is one: that of the app's backend."""
    if len(sources) == 1:
        async with aclosing(sources[0]) as source:
            async for arrival in source:
                yield arrival
        return
    queue: asyncio.Queue[Any] = asyncio.Queue()
    tasks = [asyncio.ensure_future(_drain(source, queue)) for source in sources]
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


async def _drain(source: AsyncGenerator[Arrival, None], queue: asyncio.Queue[Any]) -> None:
    async with aclosing(source):
        async for arrival in source:
            queue.put_nowait(arrival)


async def _begin(timeout: float | None, disable_sync_subtasks: bool) -> float | None:
    """Wait for one's turn, and return until when one may wait then."""
    if disable_sync_subtasks:
        assert_will_not_block()
    deadline = None if timeout is None else time.monotonic() + timeout
    await turn()
    return deadline


async def as_completed(
    results: Iterable[Any], timeout: float | None = None, *, disable_sync_subtasks: bool = True
) -> AsyncGenerator[Any, None]:
    """Yield the single results of some results and groups, each as soon as it is ready, failed or not.

    One that is given twice is yielded twice; those that are found together come in the order in which they are given.

    Args:
        results: results; of groups and sets, their members.
        timeout: seconds until it ends with an error; ``None`` waits for ever, 0 takes what is there.
        disable_sync_subtasks: whether a task may not wait here, unless it is in ``allow_join_result``.

    Raises:
        AwaitTimeout: the time is over, and some are not ready.
    """
    deadline = await _begin(timeout, disable_sync_subtasks)
    missing = []
    for result in leaves(results):
        if result.ignored or result._cache:
            yield result
        else:
            missing.append(result)
    async with aclosing(_Awaited(missing, False, deadline).arrive()) as arrivals:
        async for result, _ in arrivals:
            yield result


async def join(
    result: Any,
    timeout: float | None = None,
    propagate: bool = True,
    disable_sync_subtasks: bool = True,
    follow_parents: bool = True,
) -> Any:
    """The value of a result, or those of a group in their order, when they are ready; see ``AsyncResult.aget``."""
    deadline, follow = await _begin(timeout, disable_sync_subtasks), follow_parents and propagate
    members = [each for each in leaves([result]) if not each.ignored]
    for each in members if propagate else ():
        if follow and _has_failed(each._cache):
            await _raise_of_parents(each, deadline)
        _throw(each)
    missing = [each for each in members if not each._cache]
    async with aclosing(_Awaited(missing, follow, deadline).arrive()) as arrivals:
        async for each, meta in arrivals:
            if meta is not None:
                value_of(meta)  # raises what keeps it from being read
            if propagate:
                _throw(each)
    return _value(result)


def _throw(result: Any) -> None:
    if result._cache:
        result.get(disable_sync_subtasks=False, follow_parents=False)


def _value(result: Any) -> Any:
    if isinstance(result, ResultSet):
        return [_value(inner) for inner in result]
    return None if result.ignored else result.result


class Seen(NamedTuple):
    """What was seen of a task: its state, and what was stored with it, such as the meta of a progress, or its value."""

    state: str
    info: Any


def seen(
    result: Any, timeout: float | None = None, *, disable_sync_subtasks: bool = True
) -> AsyncGenerator[Seen, None]:
    """Yield each state of a task that is seen, with what was stored, from the one that it has now to its last.

    Of states that follow one another at once, some may not be seen: a row has one state. A task that fails raises
    nothing here: its exception is the info of its last state.

    Args:
        result: the result of a task in a backend of this package.
        timeout: seconds until it ends with an error; ``None`` waits for ever.
        disable_sync_subtasks: whether a task may not wait here, unless it is in ``allow_join_result``.

    Raises:
        AwaitTimeout: the time is over, and the task is not done.
        NotImplementedError: the result is kept by another kind of backend.
    """
    if not result._cache and not _is_ours(result):
        raise NotImplementedError(
            f"only results in a backend of this package can be watched, and this one is in {type(result.backend)}"
        )
    return _seen(result, timeout, disable_sync_subtasks)


async def _seen(result: Any, timeout: float | None, disable_sync_subtasks: bool) -> AsyncGenerator[Seen, None]:
    deadline = await _begin(timeout, disable_sync_subtasks)
    if result._cache:
        yield _of_meta(result._cache)
        return
    async with aclosing(_metas(result.backend, [_id(result)], deadline, every_state=True)) as metas:
        async for meta in metas:
            result._maybe_set_cache(meta)
            yield _of_meta(meta)


def _of_meta(meta: Mapping[str, Any]) -> Seen:
    return Seen(meta["status"], meta["result"])
