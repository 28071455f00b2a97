"""The members of a set of results, as they become ready, and the values that they come to.

Celery's own ``join_native`` files what comes under the ids of the members, asks one backend for all of them, and leaves
nested sets to themselves. So a task that is in a set twice has one value, a member that is stored elsewhere never
comes, and a nested set is asked for each of its results one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any

from celery import states
from celery.result import ResultSet, assert_will_not_block

from celery_sql_results.ids import asked_id
from celery_sql_results.payload import value_of

from .leaves import leaves, raise_of_parents
from .waits import INTERVAL, NOBODYS, Meta, Wait, each

__all__ = ["join", "metas", "some_are_ours"]

#: The shortest time, in seconds, that is left to a member of another backend: Celery before 5.7 takes 0 for no limit.
SHORTEST = 0.001


def some_are_ours(results: Iterable[Any]) -> bool:
    """Whether any of the results is in a backend of this package."""
    return any(_is_ours(leaf) for leaf in leaves(results))


def join(
    results: Iterable[Any],
    timeout: float | None = None,
    propagate: bool = True,
    interval: float | None = INTERVAL,
    callback: Callable[[Any, Any], object] | None = None,
    no_ack: bool = True,
    on_message: Callable[[Meta], object] | None = None,
    on_interval: Callable[[], object] | None = None,
    disable_sync_subtasks: bool = True,
) -> list[Any] | None:
    """The values of results in their order, those of nested sets as lists; see ``ResultSet.join_native`` of Celery.

    ``callback`` gets id and value of each member as soon as it is ready; then there are no values to return.

    Raises:
        celery.exceptions.TimeoutError: ``timeout`` seconds have passed; 0 looks once.
        what a task has raised, unless ``propagate`` is off: as soon as it is known, in the order of the results.
    """
    if disable_sync_subtasks:
        assert_will_not_block()
    members = list(results)
    arrivals = _as_ready(members, timeout, propagate, interval, no_ack, on_message, on_interval)
    with closing(arrivals):  # at once, though the traceback of an error may be kept
        for member in arrivals:
            if callback is not None:
                callback(_id(member), _value(member))
    return None if callback else [_value(member) for member in members]


def metas(results: Iterable[Any], timeout: float | None = None, **how: Any) -> Iterator[tuple[Any, Any]]:
    """Yield id and meta of each member as it becomes ready; of a nested set, id and results."""
    for member in _as_ready(list(results), timeout, False, **how):
        yield _id(member), member.results if isinstance(member, ResultSet) else member._get_task_meta()


class _Members:
    """What is missing of the members of a set.

    Args:
        members: results and sets of them.
        propagate: whether the first result that failed ends it all.
    """

    def __init__(self, members: list[Any], propagate: bool) -> None:
        self._members = members
        self._propagate = propagate
        self._succeeded: frozenset[str] = frozenset()
        self._leaves: list[Any] = []
        #: The place of the member to which a leaf belongs, and how many leaves are missing of the member at a place.
        self._place: list[int] = []
        self._left: list[int] = []
        for place, member in enumerate(members):
            added = list(leaves(member)) if isinstance(member, ResultSet) else (member,)
            self._leaves += added
            self._left.append(len(added))
            self._place += [place] * len(added)
        #: The numbers of the leaves that are missing, by their backend and id; those of other backends; the others.
        self.missing: dict[Any, dict[str, list[int]]] = {}
        self._elsewhere: list[int] = []
        self._at_hand: list[int] = []
        self._sort()

    def _sort(self) -> None:
        for number, leaf in enumerate(self._leaves):
            if leaf._cache or leaf.ignored:
                self._at_hand.append(number)
            elif leaf.backend in self.missing or _is_ours(leaf):
                missing = self.missing.setdefault(leaf.backend, {})
                missing.setdefault(asked_id(leaf.id) or NOBODYS, []).append(number)
            else:
                self._elsewhere.append(number)

    def at_hand(self) -> Iterator[Any]:
        """Yield the members for which nobody needs to wait."""
        yield from (member for member, left in zip(self._members, self._left, strict=True) if not left)
        yield from self._arrive(self._at_hand)

    def take(self, metas: Iterable[Meta], missing: dict[str, list[int]]) -> Iterator[Any]:
        """Keep what has come for what was ``missing``, and yield the members that it makes ready."""
        arrived: list[int] = []
        for meta in metas:
            value_of(meta)  # raises what keeps it from being read
            numbers = missing[meta["task_id"]]
            arrived += numbers
            for number in numbers:
                self._leaves[number]._maybe_set_cache(meta)
        yield from self._arrive(sorted(arrived))

    def await_elsewhere(self, deadline: float | None, **how: Any) -> Iterator[Any]:
        """Await what is in other backends, one by one, and yield the members that it makes ready."""
        for number in self._elsewhere:
            left = None if deadline is None else max(deadline - time.monotonic(), SHORTEST)
            self._leaves[number].get(timeout=left, propagate=self._propagate, disable_sync_subtasks=False, **how)
            yield from self._arrive([number])

    def raise_of_parents(self) -> None:
        """Raise what a task before one that is missing has raised, as its own ``get`` would: it may never run then."""
        awaited = [leaf for leaf in self._leaves if leaf.parent is not None and not leaf._cache]
        if awaited and self._propagate:
            self._succeeded = raise_of_parents(awaited, self._succeeded)

    def _arrive(self, numbers: Iterable[int]) -> Iterator[Any]:
        for number in numbers:
            meta = self._leaves[number]._cache
            if self._propagate and meta and meta["status"] in states.PROPAGATE_STATES:
                self._leaves[number].get(disable_sync_subtasks=False)  # its error, or that of a task before it
            place = self._place[number]
            self._left[place] -= 1
            if not self._left[place]:
                yield self._members[place]


def _as_ready(
    results: list[Any],
    timeout: float | None,
    propagate: bool,
    interval: float | None = INTERVAL,
    no_ack: bool = True,
    on_message: Callable[[Meta], object] | None = None,
    on_interval: Callable[[], object] | None = None,
) -> Generator[Any, None, None]:
    """Yield the members of a set as they become ready: all that are in our backends are awaited together."""
    deadline = None if timeout is None else time.monotonic() + timeout
    interval = INTERVAL if interval is None else interval
    members = _Members(results, propagate)
    yield from members.at_hand()

    def look() -> None:
        members.raise_of_parents()
        if on_interval is not None:
            on_interval()

    with ExitStack() as stack:
        waits: dict[Wait, dict[str, list[int]]] = {}
        for backend, missing in members.missing.items():
            waits[stack.enter_context(backend.awaiting(missing, deadline, on_message))] = missing
        for wait, missing in waits.items():
            yield from members.take(wait.take(0), missing)  # what is there already
        if not all(wait.is_over for wait in waits):
            members.raise_of_parents()
        for wait, found in each(list(waits), deadline, interval, look):
            yield from members.take(found, waits[wait])
    yield from members.await_elsewhere(
        deadline, interval=interval, no_ack=no_ack, on_message=on_message, on_interval=on_interval
    )


def _is_ours(leaf: Any) -> bool:
    return hasattr(leaf.backend, "awaiting")


def _id(member: Any) -> Any:
    return getattr(member, "id", None)  # a set that is no group has none


def _value(member: Any) -> Any:
    if isinstance(member, ResultSet):
        return [_value(inner) for inner in member]
    return None if member.ignored else member.result
