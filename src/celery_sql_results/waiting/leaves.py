"""The single results of sets and of sets in sets: their states, and the first error among them.

Each question is one query for each backend, however many results are asked about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from celery import states
from celery.result import ResultSet

from celery_sql_results.boundaries import caught

__all__ = ["leaves", "raise_of_parents", "states_of", "throw"]


def leaves(results: Iterable[Any]) -> Iterator[Any]:
    """The single results of a set, those of nested groups included."""
    for result in results:
        if isinstance(result, ResultSet):
            yield from leaves(result)
        else:
            yield result


def states_of(results: Iterable[Any]) -> dict[str, str]:
    """The states of the results that have one, by their ids."""
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


def throw(results: Iterable[Any], found: Mapping[str, str]) -> None:
    """Raise what the first result raised that failed, if one did; ``found`` are the states."""
    for result in leaves(results):
        if found.get(result.id) in states.PROPAGATE_STATES:
            result.maybe_throw()


def raise_of_parents(results: Sequence[Any], succeeded: frozenset[str] = frozenset()) -> frozenset[str]:
    """Raise what a task before one of ``results`` has raised, the first in a chain before those after it.

    Args:
        results: results that are awaited; each has the same right to be asked through an outage.
        succeeded: the ids of tasks that need not be looked at any more.

    Returns:
        ``succeeded``, and those that have succeeded meanwhile.
    """
    parents = [parent for result in results for parent in list(result._parents())[::-1]]
    before = [leaf for leaf in leaves(parents) if leaf.id not in succeeded]
    if not before:
        return succeeded
    found: dict[str, str] = {}
    with caught() as failure:  # a backend may raise anything
        found = states_of(before)
    if failure.error and not results[0].backend.exception_safe_to_retry(failure.error):
        raise failure.error  # else the wait outlasts an outage, and looks again
    throw(before, found)
    return succeeded | {task_id for task_id, state in found.items() if state == states.SUCCESS}
