"""The rows of tasks that are sent again: whoever sends one has claimed its row before, so that nobody else does.

A claim is a last line of the traceback, which people see, and the state RETRY if the task is sent under the same id. It
names what it was for, so that of two who have read the same row, only one can put his.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from celery import states

from .chosen import unchanged
from .queries import Asked
from .tasks import Row

__all__ = ["CLAIMED", "Resending", "note_of"]

#: How the line of a claim begins, and what it says until the task is sent.
MARK, CLAIMED = "[celery results retry] ", "claimed"
NOTE = re.compile(r"(?:^|\n)\[celery results retry\] (?P<note>[^\n]*)\s*\Z")
#: Characters of the end of a traceback that are compared: a line of ours has less.
TAIL = 400
#: What is read of a task that may be sent again.
CALL = ("id", "task_id", "status", "date_done", "name", "args", "kwargs", "content_type", "queue", "root_id")
RELATIVES = ("parent_id", "group_id")


class _Claim(NamedTuple):
    """A claim: the row that it is of, as it was read, and its line."""

    row: Row
    line: str


def note_of(row: Mapping[str, Any]) -> str | None:
    """What the last line of a claim says of a row, if there is one."""
    found = NOTE.search(row["tail"] or "")
    return found and found["note"]


class Resending:
    """The rows of one database.

    Args:
        asked: the database.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._task = asked.models.task

    def calls(self, ids: Sequence[int]) -> list[Row]:
        """How tasks were called, by the ids of their rows; ``tail`` is the end of the traceback."""
        task, read = self._task, self._asked.impl.reads
        columns = [self._asked.column(task, name) for name in (*CALL, *RELATIVES)]
        found = sa.select(*columns, read.tail(task.c.traceback, TAIL).label("tail")).where(task.c.id.in_(ids))
        return self._asked.all(found)

    def claim(self, row: Row, note: str, same_id: bool) -> _Claim | None:
        """Put a claim, unless the row is not as it was read: ``None``.

        The state of a task that is sent under the same id is RETRY from now on, so that what comes of it is stored.
        """
        line = f"\n{MARK}{CLAIMED} {note}"
        new: dict[str, Any] = {"traceback": sa.func.coalesce(self._task.c.traceback, "").concat(line)}
        if same_id:
            new |= {"status": states.RETRY, "date_done": None}
        return _Claim(row, line) if self._update(unchanged(self._task, row), row["tail"], new) else None

    def sent(self, claim: _Claim, note: str) -> None:
        """Let the line say that the task was sent; a worker may have replaced it already."""
        self._update(self._is(claim), self._tail(claim), {"traceback": self._with(claim.line, f"\n{MARK}{note}")})

    def give_up(self, claim: _Claim) -> bool:
        """Take a claim back; return whether it was there."""
        old = {name: claim.row[name] for name in ("status", "date_done")}
        before = sa.func.nullif(self._with(claim.line, ""), "")
        return self._update(self._is(claim), self._tail(claim), {**old, "traceback": before})

    def _is(self, claim: _Claim) -> sa.ColumnElement[bool]:
        is_of: sa.ColumnElement[bool] = self._task.c.id == claim.row["id"]
        return is_of

    @staticmethod
    def _tail(claim: _Claim) -> str:
        return f"{claim.row['tail'] or ''}{claim.line}"[-TAIL:]

    def _with(self, line: str, new: str) -> sa.ColumnElement[str]:
        column = self._task.c.traceback
        replaced: sa.ColumnElement[str] = self._asked.impl.reads.function("replace")(column, line, new)
        return replaced

    def _update(self, where: sa.ColumnElement[bool], tail: str | None, values: Mapping[str, Any]) -> bool:
        end = self._asked.impl.reads.tail(self._task.c.traceback, TAIL)
        same = end.is_(None) if tail is None else end == tail
        with self._asked.impl.connect(self._asked.engine) as connection:
            return bool(connection.execute(sa.update(self._task).where(where, same).values(values)).rowcount == 1)
