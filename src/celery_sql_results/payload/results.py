"""What a row tells of results: the meta of its task, and trees of results, as Celery takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import states
from celery.result import ResultBase
from kombu.exceptions import DecodeError

from celery_sql_results.ids import as_text

__all__ = ["UnreadableMeta", "pending", "stamps_of", "tree", "trees", "value_of"]

#: What is no id, in whatever form a serializer brings one.
NO_IDS = (type(None), list, tuple, dict)
#: How many calls in one another it may take to walk a tree, and how many lead to a member. Celery walks it from
#: anywhere, and Python allows for a thousand calls.
CALLS, CALLS_TO_A_MEMBER = 500, 2
TOO_DEEP = "the row holds results that are too deep in one another"


class UnreadableMeta(dict[str, Any]):
    """The meta of a task that did not fail, but whose value cannot be read: ``["result"]`` is the error that says why.

    It is false, because Celery's results keep each meta that is true, and return its value from ``get``. So each
    ``get`` comes to the backend, where :func:`value_of` raises the error.
    """

    def __bool__(self) -> bool:
        return False


def pending(task_id: Any) -> dict[str, Any]:
    """The meta of a task that has no row."""
    nothing = dict.fromkeys(("result", "traceback", "children", "date_done"))
    return {"task_id": task_id, "status": states.PENDING, **nothing}


def value_of(meta: Mapping[str, Any]) -> Any:
    """The value of a task by its meta; of one that failed, its exception.

    Raises:
        the error that says why, if the value cannot be read.
    """
    if isinstance(meta, UnreadableMeta):
        raise meta["result"].with_traceback(None)  # it may have been raised before
    return meta["result"]


def tree(value: Any) -> Any:
    """A result as Celery's ``result_from_tuple`` takes it, ``((id, parent), members)``, its ids as text.

    Args:
        value: a result, or what a serializer has made of one.

    Raises:
        kombu.exceptions.DecodeError: it is none, or too deep for whoever walks it.
    """
    try:
        return _tree(value, CALLS)
    except RecursionError:  # whoever reads is deep in calls himself
        raise DecodeError(TOO_DEEP) from None


def _tree(value: Any, calls: int) -> Any:
    if calls < 0:
        raise DecodeError(TOO_DEEP)
    if isinstance(value, ResultBase):  # bound to the backend that it was made by, if it is from a pickle
        value = value.as_tuple()  # type: ignore[attr-defined]
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    head, members = value if pair else (None, None)
    id_, parent = head if isinstance(head, (list, tuple)) and len(head) == 2 else (head, None)
    if isinstance(id_, NO_IDS) or not isinstance(members, (list, tuple, type(None))):
        raise DecodeError("the row holds something else where a result should be")
    before = _tree(parent, calls - 1) if parent else None
    leaves = None if members is None else [_tree(member, calls - CALLS_TO_A_MEMBER) for member in members]
    names = (as_text(id_), before) if isinstance(head, tuple) else [as_text(id_), before]
    return (names, leaves) if isinstance(value, tuple) else [names, leaves]  # as the serializer has it


def trees(value: Any) -> list[Any] | None:
    """The results of the tasks that a task has sent.

    Raises:
        kombu.exceptions.DecodeError: it is something else.
    """
    if not isinstance(value, (list, tuple, type(None))):
        raise DecodeError("the row holds something else where results should be")
    return None if value is None else [tree(each) for each in value]


def stamps_of(value: Any) -> dict[str, Any]:
    """What a stamped task adds to its meta.

    Raises:
        kombu.exceptions.DecodeError: it is something else.
    """
    headers, stamps = (value.get("stamped_headers"), value.get("stamps")) if isinstance(value, dict) else (None, None)
    if not isinstance(headers, list) or not isinstance(stamps, dict):
        raise DecodeError("the row holds something else where stamps should be")
    return {**stamps, "stamped_headers": headers}
