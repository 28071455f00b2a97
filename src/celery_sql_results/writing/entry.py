"""One write: what kind of row it is, and its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from celery import states

__all__ = ["CHORD", "GROUP", "PART", "TASK", "Entry"]

#: What an entry can be: a task's row, a part of a chord, a saved group, a chord that begins.
TASK, PART, GROUP, CHORD = "task", "part", "group", "chord"


class Entry(NamedTuple):
    """A kind and a row; of a task that is a part of a chord also the row of that part."""

    kind: str
    row: Mapping[str, Any]
    part: Mapping[str, Any] | None = None

    @property
    def is_outcome(self) -> bool:
        """Whether something is lost if this is not stored: all but what a task says of itself while it runs."""
        return self.kind != TASK or self.row["status"] in states.READY_STATES

    @property
    def ends_a_task(self) -> bool:
        """Whether the task is over, so that its time limit must not keep this from being stored."""
        return self.kind == PART or (self.kind == TASK and self.is_outcome)

    @property
    def chord(self) -> str | None:
        """The group id of the chord that a part was stored of."""
        part = self.row if self.kind == PART else self.part
        return part["group_id"] if part else None

    @property
    def size(self) -> int:
        """Bytes and characters of the row's values."""
        return sum(len(value) for value in self.row.values() if isinstance(value, (bytes, str)))

    def __str__(self) -> str:
        """What is done with it, for the log."""
        row = self.row
        if self.kind == TASK:
            return f"storing {row['status']} of task {row['task_id']}"
        if self.kind == PART:
            return f"counting task {row['task_id']} in"
        return f"saving group {row['taskset_id']}" if self.kind == GROUP else f"opening chord {row['group_id']}"
