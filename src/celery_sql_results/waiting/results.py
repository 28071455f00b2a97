"""Celery's result objects, where ours can do better: they are what ``app.AsyncResult`` and ``app.GroupResult`` make.

A group asks for the states of all its members in one query, and a result for those of all tasks before it. ``then``
calls back as soon as the result is there, without anybody who waits; Celery's own makes every member of every group a
result that is awaited for ever.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from datetime import datetime
from typing import Any

import celery.result
from celery import Celery, states
from vine import barrier

from celery_sql_results.ids import as_text

from . import aio
from .joining import join, some_are_ours
from .leaves import leaves, raise_of_parents, states_of, throw
from .waits import INTERVAL

__all__ = ["AsyncResult", "GroupResult", "ResultSet", "install"]

_celerys_join_native = celery.result.ResultSet.join_native


def install(app: Celery) -> None:
    """Let ``app`` make these classes, unless it makes classes of its own.

    Sets that are made of Celery's own classes, by hand or before this was called, are joined as ours: what Celery calls
    of a backend while it joins cannot mend it. Those of other backends are joined as before.
    """
    for ours in (AsyncResult, ResultSet, GroupResult):
        theirs = getattr(app, ours.__name__)
        if theirs.__mro__[1] is getattr(celery.result, ours.__name__):
            setattr(app, ours.__name__, app.subclass_with_self(ours))
    celery.result.ResultSet.join_native = join_native  # type: ignore[method-assign]


def join_native(self: Any, *args: Any, **kwargs: Any) -> Any:
    """The values of all results, read together; see :func:`~.joining.join`."""
    if not some_are_ours(self.results):
        return _celerys_join_native(self, *args, **kwargs)  # type: ignore[no-untyped-call]
    self._on_full.finalize()
    return join(self.results, *args, **kwargs)


class AsyncResult(celery.result.AsyncResult):
    """The result of one task."""

    backend: Any
    #: The ids of tasks before this one that are known to have succeeded.
    _succeeded: frozenset[str] = frozenset()

    def __init__(self, id: object, *args: Any, **kwargs: Any) -> None:
        super().__init__(None if id is None else as_text(id), *args, **kwargs)  # type: ignore[no-untyped-call]

    def _maybe_reraise_parent_error(self) -> None:
        """Celery looks at the tasks before this one as a wait begins, and every half second, at each by itself."""
        self._succeeded = raise_of_parents([self], self._succeeded)

    def _recorded(self, name: str) -> Any:
        """Read when it is asked for, unless it was read with the result."""
        meta, ask = self._get_task_meta(), getattr(self.backend, "recorded", None)  # type: ignore[no-untyped-call]
        if name not in meta and ask is not None:
            meta.update(ask(self.id))
        return meta.get(name)

    @property
    def name(self) -> Any:
        """Of the task, if a worker has met it."""
        return self._recorded("name")

    @property
    def worker(self) -> Any:
        """Which has run it."""
        return self._recorded("worker")

    @property
    def queue(self) -> Any:
        """Where that took it from."""
        return self._recorded("queue")

    @property
    def retries(self) -> Any:
        """How often it was tried again."""
        return self._recorded("retries")

    @property
    def date_queued(self) -> datetime | None:
        """When the task was first sent, in UTC; ``None`` if whoever sent it has no backend of this package."""
        return self._recorded("date_queued")  # type: ignore[no-any-return]

    @property
    def date_started(self) -> datetime | None:
        """When the task began, in UTC; of one that was tried again, the last time."""
        return self._recorded("date_started")  # type: ignore[no-any-return]

    @property
    def parent_id(self) -> str | None:
        """The id of the task that has sent this one."""
        return self._recorded("parent_id")  # type: ignore[no-any-return]

    @property
    def root_id(self) -> str | None:
        """The id of the first task of the workflow."""
        return self._recorded("root_id")  # type: ignore[no-any-return]

    @property
    def group_id(self) -> str | None:
        """The id of the group or chord that the task is a part of."""
        return self._recorded("group_id")  # type: ignore[no-any-return]

    async def aget(self, timeout: float | None = None, **how: bool) -> Any:
        """What :meth:`get` returns, for coroutines: no thread waits meanwhile.

        Args:
            timeout: seconds; 0 looks once, ``None`` waits for ever.
            how: ``propagate``, ``disable_sync_subtasks`` and ``follow_parents``, as of :meth:`get`; all are true.

        Raises:
            AwaitTimeout: it is not ready in time.
            what the task has raised, or one before it.
        """
        return await aio.join(self, timeout, **how)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.aget().__await__()

    def watch(self, timeout: float | None = None, **how: bool) -> AsyncGenerator[aio.Seen, None]:
        """Yield each state of the task that is seen, with what is stored, to coroutines; see :func:`.aio.watch`."""
        return aio.seen(self, timeout, **how)

    def then(self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False) -> Any:
        """Call ``callback`` with this result as soon as it is ready, in the thread that looks for results."""
        if not isinstance(callback, barrier):  # the barrier of a group, which knows its members by itself
            self.backend.watch([self])
        return self.on_ready.then(callback, on_error)

    def forget(self) -> None:
        """Delete the result, and call nobody back for it: before 5.6, Celery would go on to wait."""
        self.backend.remove_pending_result(self)
        super().forget()  # type: ignore[no-untyped-call]


class ResultSet(celery.result.ResultSet):
    """A set of results, which asks for all its members in one query."""

    results: Any

    join_native = join_native

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = INTERVAL,
        callback: Callable[[str, Any], object] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], object] | None = None,
    ) -> Any:
        """The values of all results, read together; see :func:`~.joining.join`."""
        how = (timeout, propagate, interval, callback, no_ack, on_message)
        if some_are_ours(self.results):
            return self.join_native(*how, on_interval, disable_sync_subtasks) or []
        return super().join(*how, disable_sync_subtasks, on_interval)  # type: ignore[no-untyped-call]

    async def aget(self, timeout: float | None = None, **how: bool) -> Any:
        """What :meth:`get` returns, for coroutines; see :meth:`AsyncResult.aget`."""
        return await aio.join(self, timeout, **how)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.aget().__await__()

    def _states(self) -> dict[str, str]:
        return states_of(self.results)

    def _all(self, result: Any, of: frozenset[str], found: dict[str, str]) -> bool:
        return all(found.get(leaf.id, states.PENDING) in of for leaf in leaves([result]))

    def ready(self) -> bool:
        """Whether every task is done."""
        found = self._states()
        return all(self._all(result, states.READY_STATES, found) for result in self.results)

    def waiting(self) -> bool:
        """Whether any task is not done."""
        return not self.ready()

    def successful(self) -> bool:
        """Whether every task succeeded."""
        return self.completed_count() == len(self.results)

    def failed(self) -> bool:
        """Whether any task failed."""
        return states.FAILURE in self._states().values()

    def completed_count(self) -> int:
        """How many of the results succeeded; a nested group counts as one."""
        found = self._states()
        return sum(self._all(result, frozenset({states.SUCCESS}), found) for result in self.results)

    def maybe_throw(self, callback: Callable[[str, Any], object] | None = None, propagate: bool = True) -> None:
        """Raise what the first member raised that failed, if one did; ``callback`` gets the id and value of each."""
        if callback is not None:
            super().maybe_throw(callback=callback, propagate=propagate)  # type: ignore[no-untyped-call]
        elif propagate:
            throw(self.results, self._states())

    maybe_reraise = maybe_throw

    def then(self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False) -> Any:
        """Call ``callback`` with this set as soon as all results are ready, in the thread that looks for results."""
        self._on_full.finalize()
        if not isinstance(callback, barrier):  # that of a group around this one
            self.backend.watch(list(leaves(self.results)))
        return self.on_ready.then(callback, on_error)


class GroupResult(ResultSet, celery.result.GroupResult):
    """The results of a group."""
