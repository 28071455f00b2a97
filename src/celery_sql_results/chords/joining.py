"""The results of a header, as its body gets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import states
from celery.exceptions import ChordError
from celery.result import ResultSet, allow_join_result, result_from_tuple

from celery_sql_results.payload import Encoding, bounded_repr, tree
from celery_sql_results.rows import Chord

from .members import leaves

__all__ = ["Join"]


class Join:
    """Reads the parts of a chord.

    Args:
        app: makes results.
        encoding: reads payloads.
    """

    def __init__(self, app: Any, encoding: Encoding) -> None:
        self._app = app
        self._encoding = encoding

    def __call__(self, chord: Chord, parts: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The results of the header; those of nested groups as lists.

        Raises:
            ChordError: a part has failed.
            whatever keeps one from being read.
        """
        if chord.header is None:
            return [self._value(part) for part in parts]
        header = result_from_tuple(tree(self._encoding.loads(chord.header, chord.content_type)), self._app)
        returned = {part["task_id"]: part for part in parts}
        values = self._await_members({leaf.id: leaf for leaf in leaves([header]) if leaf.id not in returned})

        def value_of(task_id: str) -> Any:
            return self._value(returned[task_id]) if task_id in returned else values[task_id]

        return list(_tree(header, value_of))

    def _await_members(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """The results of members that count for no part of their own: all that there is of them is what is stored.

        What one of them has raised may be an error of a database as well, so none is raised here as it is.
        """
        if not results:
            return {}
        with allow_join_result():
            timeout = self._app.conf.result_chord_join_timeout
            joined = self._app.ResultSet(list(results.values())).join_native(timeout=timeout, propagate=False)
            for result, value in zip(results.values(), joined, strict=True):
                if isinstance(value, BaseException):  # which a task may return as well
                    _raise_if_failed(result.id, result.state, value)
        return dict(zip(results, joined, strict=True))

    def _value(self, part: Mapping[str, Any]) -> Any:
        value = self._encoding.value(part)
        _raise_if_failed(part["task_id"], part["status"], value)
        return value


def _raise_if_failed(task_id: str, state: str, value: Any) -> None:
    if state in states.PROPAGATE_STATES:
        raise ChordError(f"Dependency {task_id} raised {bounded_repr(value)}") from value


def _tree(result: Any, value_of: Callable[[str], Any]) -> Any:
    """The values of a tree of results; each group a list."""
    if isinstance(result, ResultSet):
        return [_tree(member, value_of) for member in result.results or ()]
    return value_of(result.id)
