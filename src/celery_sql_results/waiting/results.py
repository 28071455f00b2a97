"""Celery's result objects, where ours can do better: they are what ``app.AsyncResult`` and ``app.GroupResult`` make.

A group asks for the states of all its members in one query, and a result for those of all tasks before it. ``then``
calls back as soon as the result is there, without anybody who waits; Celery's own makes every member of every group a
result that is awaited for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import celery.result
from celery import Celery, states
from vine import barrier

from celery_sql_results.boundaries import caught
from celery_sql_results.ids import as_text

__all__ = ["AsyncResult", "GroupResult", "ResultSet", "install", "leaves"]


def install(app: Celery) -> None:
    """Let ``app`` make these classes, unless it makes classes of its own."""
    for ours in (AsyncResult, ResultSet, GroupResult):
        theirs = getattr(app, ours.__name__)
        if theirs.__mro__[1] is getattr(celery.result, ours.__name__):
            setattr(app, ours.__name__, app.subclass_with_self(ours))


def leaves(results: Iterable[Any]) -> Iterator[Any]:
    """The single results of a set, those of nested groups included."""
    for result in results:
        if isinstance(result, celery.result.ResultSet):
            yield from leaves(result)
        else:
            yield result


def _states(results: Iterable[Any]) -> dict[str, str]:
    """The states of the members that have one, by their ids: one query for all that are stored in one place."""
    found: dict[str, str] = {}
    unknown: dict[Any, set[str]] = {}
    for result in leaves(results):
        if result._cache:
            found[result.id] = result._cache["status"]
        else:
            unknown.setdefault(result.backend, set()).add(result.id)
    for backend, ids in unknown.items():
        if hasattr(backend, "states_of"):
            found |= backend.states_of(ids)
        else:  # a task may have a backend of its own
            found |= {task_id: backend.get_state(task_id) for task_id in ids}
    return found


def _throw(results: Iterable[Any], found: Mapping[str, str]) -> None:
    """Raise what the first member raised that failed, if one did."""
    for result in leaves(results):
        if found.get(result.id) in states.PROPAGATE_STATES:
            result.maybe_throw()


class AsyncResult(celery.result.AsyncResult):
    """The result of one task."""

    backend: Any
    #: The ids of tasks before this one that are known to have succeeded.
    _succeeded: frozenset[str] = frozenset()

    def __init__(self, id: object, *args: Any, **kwargs: Any) -> None:
        super().__init__(None if id is None else as_text(id), *args, **kwargs)  # type: ignore[no-untyped-call]

    def _maybe_reraise_parent_error(self) -> None:
        """Celery looks at the tasks before this one as a wait begins, and every half second, at each by itself."""
        parents = list(self._parents())[::-1]  # type: ignore[no-untyped-call]
        before = [result for result in leaves(parents) if result.id not in self._succeeded]
        found: dict[str, str] = {}
        with caught() as failure:  # a backend may raise anything
            found = _states(before)
        if failure.error and not self.backend.exception_safe_to_retry(failure.error):
            raise failure.error  # else the wait outlasts an outage, and looks again
        self._succeeded |= {task_id for task_id, state in found.items() if state == states.SUCCESS}
        _throw(before, found)

    def then(self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False) -> Any:
        """Call ``callback`` with this result as soon as it is ready, in the thread that looks for results."""
        if not isinstance(callback, barrier):  # the barrier of a group, which knows its members by itself
            self.backend.watch([self])
        return self.on_ready.then(callback, on_error)


class ResultSet(celery.result.ResultSet):
    """A set of results, which asks for all its members in one query."""

    results: Any
    #: Whether the join that is under way ends with the first result that failed.
    propagates = False

    def join_native(self, timeout: float | None = None, propagate: bool = True, *args: Any, **kwargs: Any) -> Any:
        """The values of all results, read together; see :meth:`.Waits.members`."""
        self.propagates = propagate
        return super().join_native(timeout, propagate, *args, **kwargs)  # type: ignore[no-untyped-call]

    def _states(self) -> dict[str, str]:
        return _states(self.results)

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
            _throw(self.results, self._states())

    maybe_reraise = maybe_throw

    def then(self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False) -> Any:
        """Call ``callback`` with this set as soon as all results are ready, in the thread that looks for results."""
        self._on_full.finalize()
        if not isinstance(callback, barrier):  # that of a group around this one
            self.backend.watch(list(leaves(self.results)))
        return self.on_ready.then(callback, on_error)


class GroupResult(ResultSet, celery.result.GroupResult):
    """The results of a group."""
