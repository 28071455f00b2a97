"""Which tasks are parts of a chord, and how far the outcome of each is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import current_task

from celery_sql_results.ids import stored_id

__all__ = ["COUNTED", "KEPT", "is_over", "mark", "mark_outcome", "part_of", "part_with", "stage_of"]

#: The position of a part that has none.
LAST = 2**31 - 1
#: The attribute of a request that says how far its outcome is. Without it, what is stored is only what the task says of
#: itself while it runs (``update_state`` may say anything): that is no part of a chord.
_STAGE = "_celery_sql_results_stage"
#: The task has ended; its part was stored with its result; it was kept with it in the spool.
OUTCOME, COUNTED, KEPT = "outcome", "counted", "kept"


def mark_outcome(request: Any) -> None:
    """What is stored next for this request is the outcome of its task."""
    if request is not None:
        setattr(request, _STAGE, OUTCOME)


def mark(request: Any, stored: bool) -> None:
    """Remember that a part was stored with the result of its task, or was kept with it in the spool."""
    setattr(request, _STAGE, COUNTED if stored else KEPT)


def stage_of(request: Any) -> str | None:
    """How far the outcome of a task is."""
    return getattr(request, _STAGE, None)


def is_over() -> bool:
    """Whether no task runs in this thread, or only what follows its outcome: then a time limit is nobody's any more."""
    return not current_task or stage_of(current_task.request) is not None


def part_with(request: Any, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a task leaves behind as a part of a chord, if it is one; ``row`` is what is stored of its result.

    Celery counts it in right after the result was stored. Stored in one commit, a part is not lost to a process that
    ends in between: Celery may acknowledge a task whose result is there, and not run it again.
    """
    # Celery lets the rest of a chain fail by storing it, with a request that it has made of a signature.
    is_outcome = stage_of(request) == OUTCOME or hasattr(request, "subtask_type")
    return part_for(request, row) if is_outcome else None


def part_for(request: Any, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a task that is sure to end with ``row`` leaves behind, if it is a part of a chord."""
    if not request.chord or not request.group:
        return None
    return part_of(request, row["status"], row["result"], row["content_type"])


def part_of(request: Any, state: str, result: bytes, content_type: str) -> dict[str, Any]:
    """The row of a part."""
    return {
        "group_id": stored_id("group", request.group),
        "task_id": stored_id("task", request.id),
        "position": LAST if request.group_index is None else request.group_index,
        "status": state,
        "result": result,
        "content_type": content_type,
    }
