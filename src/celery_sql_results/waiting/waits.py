"""The waits of a backend for one result, for the members of a set and for many tasks, in terms of the looker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import ResultSet
from celery.utils.log import get_logger

from celery_sql_results.ids import asked_id
from celery_sql_results.payload import value_of
from celery_sql_results.writing import Retries

from .results import leaves
from .share import Share
from .subscription import Subscription
from .watching import NOBODYS, Watching

__all__ = ["INTERVAL", "Waits"]

Meta = dict[str, Any]
logger = get_logger(__name__)

#: Seconds between two calls of ``on_interval``, and so between two looks at the parents of a result.
INTERVAL = 0.5
#: The least: without any pause, a wait would only ask whether it is over.
LEAST_INTERVAL = 0.01


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
        self._watching = Watching(share, retries, lambda row: self._remember(meta_of(row)))

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

    def members(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float | None = INTERVAL,
        no_ack: bool = True,
        on_message: Callable[[Meta], object] | None = None,
        on_interval: Callable[[], object] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield ``(id, meta)`` of the members of a set as they become ready; of a nested set, its id and results.

        Whoever joins asks each result of a nested set for its value, in order and without a timeout. So the set is
        yielded when none of that needs a wait: all are ready, or all before one that failed and ends the join.
        """
        members = _Members(result.results, getattr(result, "propagates", False))
        yield from members.at_hand

        def look() -> None:
            members.raise_of_parents()
            if on_interval is not None:
                on_interval()

        for meta in self._await(members.missing, timeout, interval, look, on_message):
            value_of(meta)  # raises what keeps it from being read
            yield from members.take(meta)

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

        ``max_iterations`` ends the wait, without an error, when that many intervals have begun.

        Raises:
            celery.exceptions.TimeoutError: ``timeout`` seconds have passed and some are not ready; 0 looks once.
        """
        if max_iterations is not None:
            timeout = (max_iterations - 1) * (interval or INTERVAL)
        try:
            for meta in self._await(set(task_ids), timeout, interval, on_interval, on_message, READY_STATES):
                yield meta["task_id"], meta
        except CeleryTimeoutError:
            if max_iterations is None:
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
        asked = {asked_id(task_id) or NOBODYS for task_id in task_ids}
        cached = [self._cache[task_id] for task_id in asked if task_id in self._cache]
        yield from cached
        missing = asked.difference(meta["task_id"] for meta in cached)
        if not missing:
            return
        wait = Subscription(missing, ready_states, every_state=on_message is not None)
        try:
            self.share.begin(wait, deadline)
            for meta in self._take(wait, deadline, INTERVAL if interval is None else interval, on_interval):
                if on_message is not None:
                    on_message(meta)
                if meta["status"] in ready_states:
                    yield meta
        finally:
            self.share.end(wait)

    def _take(
        self, wait: Subscription, deadline: float | None, interval: float, on_interval: Callable[[], object] | None
    ) -> Iterator[Meta]:
        """Yield what comes for a wait, until nothing is missing or the time is over; ``on_interval`` in between."""
        called, interval = time.monotonic(), max(interval, LEAST_INTERVAL)
        while True:
            left = interval if deadline is None else min(interval, deadline - time.monotonic())
            for row in wait.take(max(left, 0.0)):
                yield self._remember(self._meta_of(row))
            now = time.monotonic()
            if not wait.untaken:
                return
            if deadline is not None and now >= deadline:
                raise CeleryTimeoutError("The operation timed out.")
            if on_interval is not None and now - called >= interval:
                called = now
                on_interval()

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


class _Members:
    """The members of a set: those that are at hand, and those that become so as results come for what is missing.

    Args:
        propagates: whether whoever joins goes no further than to a result that failed.
    """

    def __init__(self, results: Iterable[Any], propagates: bool) -> None:
        self._propagates = propagates
        self.at_hand: list[tuple[str, Any]] = []
        self.missing: dict[str, list[Any]] = {}
        #: Of nested sets, what is not at hand yet, in order; and by the ids of these results, the sets.
        self._lefts: list[deque[Any]] = []
        self._nested: dict[str, list[tuple[Any, deque[Any]]]] = {}
        sets = []
        for member in results:
            if isinstance(member, ResultSet):
                sets.append(member)
            elif member._cache:
                self.at_hand.append((member.id, member._cache))
            else:
                self.missing.setdefault(asked_id(member.id) or NOBODYS, []).append(member)
        self._own = {id_: members[0].id for id_, members in self.missing.items()}
        for nested in sets:
            self._add(nested)

    def _add(self, nested: Any) -> None:
        left = deque(leaves([nested]))
        missing = [leaf for leaf in left if not leaf._cache]  # first: another thread may fulfil some just now
        if self._needs_no_wait(left):
            self.at_hand.append((nested.id, nested.results))
            return
        self._lefts.append(left)
        for leaf in missing:
            id_ = asked_id(leaf.id) or NOBODYS
            self.missing.setdefault(id_, []).append(leaf)
            self._nested.setdefault(id_, []).append((nested, left))

    def take(self, meta: Meta) -> Iterator[tuple[str, Any]]:
        """Keep what has come, and yield the members that it makes ready."""
        task_id = meta["task_id"]
        for result in self.missing[task_id]:
            result._maybe_set_cache(meta)
        if task_id in self._own:
            yield self._own[task_id], meta  # the member's own: whoever joins looks for that
        for nested, left in self._nested.get(task_id, ()):
            if left and self._needs_no_wait(left):
                yield nested.id, nested.results

    def raise_of_parents(self) -> None:
        """Raise what a task before a nested one has raised, as its own ``get`` would: it may never run then."""
        if self._propagates:
            for left in self._lefts:
                if left and left[0].parent is not None:
                    left[0]._maybe_reraise_parent_error()

    def _needs_no_wait(self, left: deque[Any]) -> bool:
        """Whether each result is at hand, up to one that ends the join; what is at hand is taken from ``left``."""
        while left and left[0]._cache:
            if left.popleft()._cache["status"] in states.PROPAGATE_STATES and self._propagates:
                left.clear()
        return not left
