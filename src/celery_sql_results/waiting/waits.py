"""The waits of a backend for one result and for many tasks, in terms of the looker."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError

from celery_sql_results.ids import asked_id
from celery_sql_results.payload import value_of
from celery_sql_results.writing import Retries

from .share import Share
from .subscription import Subscription
from .watching import NOBODYS, Watching

__all__ = ["INTERVAL", "NOBODYS", "Meta", "Wait", "Waits", "each"]

Meta = dict[str, Any]

#: Seconds between two calls of ``on_interval``, and so between two looks at the parents of a result.
INTERVAL = 0.5
#: The least: without any pause, a wait would only ask whether it is over.
LEAST_INTERVAL = 0.01
#: Seconds for which one of several backends is awaited before it is the turn of the next.
TURN = 0.01


class Wait:
    """A wait that has begun.

    Args:
        at_hand: the metas of tasks that are known to be ready.
        subscription: brings the rows of the others.
        read: reads a row.
        on_message: gets each meta that comes.
        ready_states: the states that are awaited.
    """

    def __init__(
        self,
        at_hand: Iterable[Meta],
        subscription: Subscription | None = None,
        read: Callable[[Mapping[str, Any]], Meta] = dict,
        on_message: Callable[[Meta], object] | None = None,
        ready_states: frozenset[str] = states.READY_STATES,
    ) -> None:
        self._at_hand = list(at_hand)
        self._subscription = subscription
        self._read = read
        self._on_message = on_message
        self.ready_states = ready_states

    @property
    def is_over(self) -> bool:
        """Whether all has been taken."""
        return not self._at_hand and not (self._subscription and self._subscription.untaken)

    def take(self, seconds: float) -> list[Meta]:
        """Wait up to some seconds for tasks to be ready, and return the metas of those that are."""
        taken, self._at_hand = self._at_hand, []
        if self._subscription is not None and self._subscription.untaken:
            for row in self._subscription.take(0.0 if taken else seconds):
                meta = self._read(row)
                if self._on_message is not None:
                    self._on_message(meta)
                if meta["status"] in self.ready_states:
                    taken.append(meta)
        return taken


def each(
    waits: Sequence[Wait], deadline: float | None, interval: float, on_interval: Callable[[], object] | None
) -> Iterator[tuple[Wait, list[Meta]]]:
    """Yield what comes for some waits until nothing is missing; ``on_interval`` is called in between.

    Raises:
        celery.exceptions.TimeoutError: the ``deadline`` is over.
    """
    called, interval = time.monotonic(), max(interval, LEAST_INTERVAL)
    while waits := [wait for wait in waits if not wait.is_over]:
        left = interval if deadline is None else min(interval, deadline - time.monotonic())
        for wait in waits:
            metas = wait.take(max(left if len(waits) == 1 else min(left, TURN), 0.0))
            if metas:
                yield wait, metas
        now = time.monotonic()
        if all(wait.is_over for wait in waits):
            return
        if deadline is not None and now >= deadline:
            raise CeleryTimeoutError("The operation timed out.")
        if on_interval is not None and now - called >= interval:
            called = now
            on_interval()


class Waits:
    """The waits through one backend.

    Args:
        share: what looks for them.
        retries: repeats what passes.
        meta_of: reads a row.
        cache: the metas of tasks that have succeeded, by their ids.
    """

    def __init__(
        self,
        share: Share,
        retries: Retries,
        meta_of: Callable[[Mapping[str, Any]], Meta],
        cache: MutableMapping[str, Meta],
    ) -> None:
        self.share = share
        self._meta_of = meta_of
        self._cache = cache
        self._watching = Watching(share, retries, self.read)

    def close(self) -> None:
        """Nobody is called back any more, and nothing is held for those who may wait."""
        self._watching.close()
        self.share.close()

    def one(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float | None = INTERVAL,
        no_ack: bool = True,
        on_interval: Callable[[], object] | None = None,
    ) -> Meta:
        """The meta of a task when it is ready.

        Raises:
            celery.exceptions.TimeoutError: ``timeout`` seconds have passed; 0 looks once.
        """
        return next(self._await({task_id}, timeout, interval, on_interval))

    def result(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float | None = INTERVAL,
        no_ack: bool = True,
        on_message: Callable[[Meta], object] | None = None,
        on_interval: Callable[[], object] | None = None,
    ) -> None:
        """Fulfil a result when it is ready."""
        for meta in self._await({result.id}, timeout, interval, on_interval, on_message):
            value_of(meta)  # raises what keeps it from being read
            result._maybe_set_cache(meta)
            if on_interval is not None and meta["status"] in states.PROPAGATE_STATES:
                on_interval()  # Celery looks at the tasks before this one here: the error of one of those goes before

    def many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = INTERVAL,
        no_ack: bool = True,
        on_message: Callable[[Meta], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,
    ) -> Iterator[tuple[str, Meta]]:
        """Yield ``(task id, meta)`` of each task as it is found in one of ``READY_STATES``.

        ``max_iterations`` ends the wait, without an error, when that many intervals have begun, unless ``timeout``
        ends it before.

        Raises:
            celery.exceptions.TimeoutError: ``timeout`` seconds have passed and some are not ready; 0 looks once.
        """
        longest = math.inf if max_iterations is None else (max_iterations - 1) * (interval or INTERVAL)
        is_silent = longest < (math.inf if timeout is None else timeout)
        limit = longest if is_silent else timeout
        try:
            for meta in self._await(set(task_ids), limit, interval, on_interval, on_message, READY_STATES):
                yield meta["task_id"], meta
        except CeleryTimeoutError:
            if not is_silent:
                raise

    def _await(
        self,
        task_ids: Collection[str],
        timeout: float | None,
        interval: float | None,
        on_interval: Callable[[], object] | None = None,
        on_message: Callable[[Meta], object] | None = None,
        ready_states: frozenset[str] = states.READY_STATES,
    ) -> Iterator[Meta]:
        """Yield the meta of each task when it is ready; ``on_message`` gets those of other states as well."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.begin(task_ids, deadline, on_message, ready_states) as wait:
            for _, metas in each([wait], deadline, INTERVAL if interval is None else interval, on_interval):
                yield from metas

    @contextmanager
    def begin(
        self,
        task_ids: Iterable[str],
        deadline: float | None,
        on_message: Callable[[Meta], object] | None = None,
        ready_states: frozenset[str] = states.READY_STATES,
    ) -> Iterator[Wait]:
        """A wait for tasks, for the length of the block; what is ready is there when the block begins."""
        asked = {asked_id(task_id) or NOBODYS for task_id in task_ids}
        cached = self.cached(asked, ready_states)
        missing = asked.difference(cached)
        if not missing:
            yield Wait(cached.values())
            return
        found = Subscription(missing, ready_states, every_state=on_message is not None)
        try:
            self.share.begin(found, deadline)
            yield Wait(cached.values(), found, self.read, on_message, ready_states)
        finally:
            self.share.end(found)

    def cached(self, task_ids: Iterable[str], ready_states: frozenset[str] = states.READY_STATES) -> dict[str, Meta]:
        """The metas of tasks that are known to have succeeded."""
        found: dict[str, Meta] = {}
        for task_id in task_ids if self._cache else ():
            try:
                meta = self._cache[task_id]  # asked for once: another thread may drop it at any time
            except KeyError:
                continue
            if meta["status"] in ready_states:
                found[task_id] = meta
        return found

    def read(self, row: Mapping[str, Any]) -> Meta:
        """The meta of a row."""
        return self._remember(self._meta_of(row))

    def _remember(self, meta: Meta) -> Meta:
        if meta["status"] == states.SUCCESS:
            self._cache[meta["task_id"]] = meta
        return meta

    # -- then ----------------------------------------------------------------------------------------------------

    def watch(self, results: Collection[Any]) -> None:
        """Fulfil results as soon as they are ready, in the thread that finds them, while somebody has them."""
        self._watching.begin(results)

    def unwatch(self, result: Any) -> None:
        """Take :meth:`watch` back. Nobody is waited for: this is called as results end."""
        self._watching.end(result)
