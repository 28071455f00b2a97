"""Which results a command changes: those that were there when it has counted them, and none that come later."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from celery_sql_results.boundaries import caught
from celery_sql_results.rows import Row
from celery_sql_results.rows.queries import Asked, Cursor, Filter, Results

from .desk import Desk, Ending

__all__ = ["OpenChords", "Targets", "chosen"]

#: Results that one query reads, chords likewise, and ids of one filter.
PAGE, CHORDS, IDS = 1_000, 100, 50


def chosen(ids: Sequence[str], which: Filter, everything: bool) -> None:
    """See to it that somebody has said what is meant.

    Raises:
        Ending: nobody has, or two things that exclude each other.
    """
    if everything and ids:
        raise Ending("--all and ids exclude each other")
    if not ids and which == Filter() and not everything:
        raise Ending("which results? Give ids or filters (--state, --task, --until …); --all means all of them")


class Targets:
    """The results that are meant.

    Args:
        asked: the database.
        which: the filter that they meet.
        ids: their whole ids, if they were named.
    """

    def __init__(self, asked: Asked, which: Filter, ids: Sequence[str] = ()) -> None:
        self._results = Results(asked)
        chunks = [ids[at : at + IDS] for at in range(0, len(ids), IDS)]
        self._filters = [replace(which, ids=some) for some in chunks] or [which]
        self._newest: dict[int, Cursor] = {}
        self._last_id: int | None = None

    def pages(self) -> Iterator[list[Row]]:
        """The results, page by page, the newest first. From the second time on, those of the first time.

        What was written since may have any time, as of a task that ended long ago and waited in a spool.
        """
        if self._last_id is None:
            self._last_id = self._results.newest_id()
        for number, which in enumerate(self._filters):
            cursor = self._newest.get(number)
            while True:
                page = self._results.meant(which, PAGE, cursor)
                if page.rows:
                    first = page.rows[0]
                    self._newest.setdefault(number, Cursor(first["when"], first["id"] + 1))
                    yield [row for row in page.rows if row["id"] <= self._last_id]
                cursor = page.next
                if cursor is None:
                    break


class OpenChords:
    """The chords whose body was not sent: whatever belongs to one is still needed.

    Args:
        desk: has the database.
    """

    def __init__(self, desk: Desk) -> None:
        self._asked = asked = desk.asked
        self._chords = asked.models.chords
        self._are_there = asked.has(self._chords, "group_id", "date_dispatched")
        self._members: dict[str, str] | None = None

    def of(self, rows: Sequence[Row]) -> dict[str, str]:
        """The chords that some tasks belong to, by the ids of the tasks."""
        if not self._are_there:
            return {}
        groups = {row["group_id"] for row in rows if row["group_id"]}
        found = self._open_of(groups) if groups else set()
        known = {row["task_id"]: row["group_id"] for row in rows if row["group_id"] in found}
        members = self._by_member()
        return {**known, **{row["task_id"]: members[row["task_id"]] for row in rows if row["task_id"] in members}}

    def _open_of(self, groups: set[str]) -> set[str]:
        chords = self._chords.c
        open_ = sa.select(chords.group_id).where(
            chords.date_dispatched.is_(None), self._asked.impl.one_of(chords.group_id)
        )
        return {row["group_id"] for row in self._asked.batches(open_, groups)}

    def _by_member(self) -> dict[str, str]:
        """The chord of each member, as its header tells. Open chords are few as a rule."""
        if self._members is None:
            self._members = dict(self._read()) if self._asked.has(self._chords, "members") else {}
        return self._members

    def _read(self) -> Iterator[tuple[str, str]]:
        chords, after = self._chords.c, ""
        while True:
            some = sa.select(chords.group_id, chords.members).where(
                chords.date_dispatched.is_(None), chords.group_id > after
            )
            found = self._asked.all(some.order_by(chords.date_dispatched, chords.group_id).limit(CHORDS))
            for row in found:
                yield from ((task_id, row["group_id"]) for task_id in _ids(row["members"]))
            if len(found) < CHORDS:
                return
            after = found[-1]["group_id"]


def _ids(members: Any) -> list[str]:
    """The ids of a header. Whoever can write to the table can put anything there."""
    with caught():
        found = json.loads(bytes(members or b"[]"))
        return [id_ for id_ in found if isinstance(id_, str)]
    return []
