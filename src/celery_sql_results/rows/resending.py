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

__all__ = ["CLAIMED", "Claim", "Resending", "note_of"]

#: How the line of a claim begins, and what it says until the task is sent.
MARK, CLAIMED = "[celery results retry] ", "claimed"
NOTE = re.compile(r"(?:^|\n)\[celery results retry\] (?P<note>[^\n]*)\s*\Z")
#: Characters of the end of a traceback that are compared: a line of ours has less.
TAIL = 400
#: What is read of a task that may be sent again.
CALL = ("id", "task_id", "status", "date_done", "name", "args", "kwargs", "content_type", "queue", "root_id")
RELATIVES = ("parent_id", "group_id", "worker")


class Claim(NamedTuple):
    """A claim: the row that it is of, as it was read, its line, and that of the claim that it took the place of."""

    row: Row
    line: str
    before: str


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

    def claim(self, row: Row, note: str, same_id: bool) -> Claim | None:
        """Put a claim, unless the row is not as it was read: ``None``.

        The state of a task that is sent under the same id is RETRY from now on, so that what comes of it is stored.
        """
        old = note_of(row)
        claim = Claim(row, f"\n{MARK}{CLAIMED} {note}", "" if old is None else f"\n{MARK}{old}")
        kept = self._with(claim.before, "") if claim.before else sa.func.coalesce(self._task.c.traceback, "")
        new: dict[str, Any] = {"traceback": kept.concat(claim.line)}
        if same_id:
            new |= {"status": states.RETRY, "date_done": None}
        end = self._end(TAIL)
        same = end.is_(None) if row["tail"] is None else end == row["tail"]
        return claim if self._update(new, unchanged(self._task, row), same) else None

    def sent(self, claim: Claim, note: str) -> None:
        """Let the line say that the task was sent; a worker may have replaced it already."""
        self._update({"traceback": self._with(claim.line, f"\n{MARK}{note}")}, *self._is(claim))

    def give_up(self, claim: Claim) -> bool:
        """Take a claim back; return whether it was there."""
        old = {name: claim.row[name] for name in ("status", "date_done")}
        before = sa.func.nullif(self._with(claim.line, claim.before), "")
        return self._update({**old, "traceback": before}, *self._is(claim))

    def _is(self, claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
        """Whether a claim is there: no other has such a line."""
        return self._task.c.id == claim.row["id"], self._end(len(claim.line)) == claim.line

    def _end(self, size: int) -> sa.ColumnElement[str]:
        return self._asked.impl.reads.tail(self._task.c.traceback, size)

    def _with(self, line: str, new: str) -> sa.ColumnElement[str]:
        column = self._task.c.traceback
        replaced: sa.ColumnElement[str] = self._asked.impl.reads.function("replace")(column, line, new)
        return replaced

    def _update(self, values: Mapping[str, Any], *where: sa.ColumnElement[bool]) -> bool:
        with self._asked.impl.connect(self._asked.engine) as connection:
            return bool(connection.execute(sa.update(self._task).where(*where).values(values)).rowcount == 1)
