"""Which chords have not sent their body, how far they are, and what they wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from celery import states

from celery_sql_results.rows.chords import ADDED
from celery_sql_results.rows.tasks import Row

from .asking import Asked

__all__ = ["ChordMember", "ChordQuestions", "OpenedChord"]

#: How far a chord is: it awaits parts; it is complete; a process is elected to send its body, or has sent it; whoever
#: sends the header has not said how many parts there are.
WAITING, COMPLETE, CLAIMED, SENT, UNSIZED = "waiting", "complete", "claimed", "sent", "unsized"
#: The state of a member of whom nothing is stored: it waits in its queue, or its message was lost.
UNKNOWN: Final = "UNKNOWN"
#: Bytes of a body that are read: they name its task.
HEAD = 400
#: Bytes of the ids of a header that are read, members that are looked at in one step, and chords that one query reads.
LONGEST, MEMBERS, AT_ONCE = 20_000_000, 20_000, 200

#: A member and its position in the header.
Place = tuple[str, int]


@dataclass(frozen=True)
class OpenedChord:
    """How far a chord is.

    Attributes:
        state: in a word; see above.
        created: when it was begun, and ``sent`` when its body was sent.
        size: how many parts it has, where that is known; ``returned`` so many have.
        body: the beginning of the JSON of its body, or of what lets that fail.
        claimed_by, claimed_until: who is elected to send the body.
    """

    group_id: str
    state: str
    created: datetime
    sent: datetime | None
    size: int | None
    returned: int
    body: bytes | None
    claimed_by: str | None
    claimed_until: datetime | None


class ChordMember(NamedTuple):
    """A member of a header: its state as it is stored, and whether its part ``is_missing``."""

    position: int
    task_id: str
    state: str
    is_missing: bool
    name: str | None
    worker: str | None
    started: datetime | None
    ended: datetime | None


class ChordQuestions:
    """The chords, as people ask for them.

    Args:
        asked: the database.
        header_of: the ids of a header, as they are stored with the chord; an empty one stands for what is unreadable.
        missing_of: the places of a header that have no part.
    """

    def __init__(
        self,
        asked: Asked,
        header_of: Callable[[bytes | None], list[str]],
        missing_of: Callable[[Sequence[str], Sequence[Place]], Iterable[Place]],
    ) -> None:
        self._asked, self._header_of, self._missing_of = asked, header_of, missing_of
        self._chords, self._parts = asked.models.chords, asked.models.parts

    @property
    def are_there(self) -> bool:
        """Whether there are tables of chords, which this role may read."""
        return self._asked.has(self._chords, "group_id") and self._asked.has(self._parts, "group_id")

    def opened(self, limit: int, older_than: float = 0, after: OpenedChord | None = None) -> list[OpenedChord]:
        """So many chords whose body was not sent, the oldest first.

        Args:
            limit: how many at most.
            older_than: seconds since they were begun.
            after: where the page before has ended.

        Raises:
            TooLong: the database did not answer in time.
        """
        chords = self._chords.c
        begun = chords.date_created < self._asked.impl.now(timedelta(seconds=-older_than))
        found = self._select.where(chords.date_dispatched.is_(None), begun)
        if after is not None:
            same = sa.and_(chords.date_created == after.created, chords.group_id > after.group_id)
            found = found.where(sa.or_(chords.date_created > after.created, same))
        # The order begins with what is NULL in all of them, so that no database reads along the times of all chords.
        found = found.order_by(chords.date_dispatched, chords.date_created, chords.group_id).limit(limit)
        return [_chord(row) for row in self._asked.all(found)]

    def stuck(self, limit: int, older_than: float) -> list[tuple[OpenedChord, str]]:
        """So many of these that nothing seems to happen to, each with the reason in a few words."""
        found: list[tuple[OpenedChord, str]] = []
        page, after = self.opened(AT_ONCE, older_than), None
        while page and len(found) < limit:
            for some in _bounded(page):
                members = self.members([chord for chord in some if chord.state == WAITING])
                found += [(chord, why) for chord in some if (why := _stuck(chord, members.get(chord.group_id, ())))]
            after = page[-1]
            page = self.opened(AT_ONCE, older_than, after) if len(page) == AT_ONCE else []
        return found[:limit]

    def like(self, prefix: str, limit: int) -> list[OpenedChord]:
        """Chords, also those whose body was sent, whose ids begin with a text."""
        id_ = self._chords.c.group_id
        like = self._asked.impl.reads.like(id_, f"{prefix.replace('*', '?')}*")
        found = self._select.where(like, id_ >= prefix, id_ < f"{prefix}zzzz").order_by(id_).limit(limit)
        return [_chord(row) for row in self._asked.all(found)]

    def members(self, chords: Sequence[OpenedChord]) -> dict[str, list[ChordMember]]:
        """The members of the headers of chords, also those that were added, by position; none once a body was sent."""
        asked, parts = self._asked, self._parts.c
        ids = [chord.group_id for chord in chords]
        headers = {row["group_id"]: row["members"] for row in asked.batches(self._headers, ids)} if ids else {}
        found = sa.select(parts.group_id, parts.task_id, parts.position, parts.status)
        there: dict[str, dict[Place, str]] = {id_: {} for id_ in headers}
        for row in asked.batches(found.where(asked.impl.one_of(parts.group_id)), ids) if ids else ():
            there.get(row["group_id"], {})[row["task_id"], row["position"]] = row["status"]
        missing = {id_: self._missing(headers[id_], there[id_]) for id_ in headers}
        rows = self._rows({task_id for places in missing.values() for task_id, _ in places})
        return {id_: sorted(_members(there[id_], missing[id_], rows)) for id_ in headers}

    def _missing(self, header: bytes | None, parts: dict[Place, str]) -> list[Place]:
        return list(self._missing_of(self._header_of(header), list(parts)))

    def _rows(self, task_ids: set[str]) -> dict[str, Row]:
        """What is stored of tasks, by their ids."""
        asked, task = self._asked, self._asked.models.task
        names = ("status", "name", "worker", "date_started", "date_done")
        found = sa.select(task.c.task_id, *(asked.column(task, name) for name in names))
        rows = asked.batches(found.where(asked.impl.one_of(task.c.task_id)), sorted(task_ids - {""}))
        return {row["task_id"]: row for row in rows}

    # -- statements ----------------------------------------------------------------------------------------------

    @property
    def _select(self) -> sa.Select[Any]:
        asked, chords, parts = self._asked, self._chords.c, self._parts.c
        count = asked.impl.reads.function("count")(parts.task_id, type_=sa.Integer)
        of_it = sa.select(count).where(parts.group_id == chords.group_id)
        is_free = sa.or_(chords.claimed_until.is_(None), chords.claimed_until < asked.impl.now())
        body = sa.func.coalesce(chords.body, asked.column(self._chords, "bare_body"), type_=sa.LargeBinary)
        names = ("group_id", "size", "date_created", "date_dispatched", "claimed_by", "claimed_until")
        return sa.select(
            *(chords[name] for name in names),
            of_it.where(parts.position == sa.literal_column(f"{ADDED}")).scalar_subquery().label("added"),
            of_it.where(parts.position != sa.literal_column(f"{ADDED}")).scalar_subquery().label("returned"),
            sa.case((is_free, sa.true()), else_=sa.false()).label("is_free"),
            asked.impl.reads.head(body, HEAD).label("head"),
        )

    @property
    def _headers(self) -> sa.Select[Any]:
        """What is too long, nobody reads."""
        chords, members = self._chords.c, self._asked.column(self._chords, "members")
        is_short = self._asked.impl.size_of(members) <= LONGEST
        found = sa.select(chords.group_id, sa.case((is_short, members)).label("members"))
        return found.where(self._asked.impl.one_of(chords.group_id))


def _chord(row: Row) -> OpenedChord:
    size = None if row["size"] is None else row["size"] + row["added"]
    return OpenedChord(
        row["group_id"], _state(row, size), row["date_created"], row["date_dispatched"], size, row["returned"],
        row["head"] and bytes(row["head"]), row["claimed_by"], row["claimed_until"],
    )  # fmt: skip


def _state(row: Row, size: int | None) -> str:
    if row["date_dispatched"] is not None:
        return SENT
    if not row["is_free"]:
        return CLAIMED
    if size is None:
        return UNSIZED
    return COMPLETE if size <= row["returned"] else WAITING


def _members(parts: dict[Place, str], missing: Sequence[Place], rows: dict[str, Row]) -> Iterator[ChordMember]:
    for (task_id, position), state in parts.items():
        if position != ADDED:
            yield ChordMember(position, task_id, state, False, None, None, None, None)
    for task_id, position in missing:
        row = rows.get(task_id)
        if row is None:
            yield ChordMember(position, task_id, UNKNOWN, True, None, None, None, None)
        else:
            times = row["date_started"], row["date_done"]
            yield ChordMember(position, task_id, row["status"], True, row["name"], row["worker"], *times)


def _bounded(chords: Sequence[OpenedChord]) -> Iterator[list[OpenedChord]]:
    """Chords in lists of so many members, unless one has more."""
    some: list[OpenedChord] = []
    for chord in chords:
        if some and sum(each.size or 0 for each in (*some, chord)) > MEMBERS:
            yield some
            some = []
        some.append(chord)
    yield some


def _stuck(chord: OpenedChord, members: Iterable[ChordMember]) -> str | None:
    """Why nothing seems to happen to a chord; ``None`` if a process has it, or a missing member is at work."""
    if chord.state == WAITING:
        return _waits_in_vain([member for member in members if member.is_missing])
    whys = {COMPLETE: "complete, but nobody sends the body", UNSIZED: "the header was not sent to its end"}
    return whys.get(chord.state)


def _waits_in_vain(missing: Sequence[ChordMember]) -> str | None:
    ended = sum(member.state in states.READY_STATES for member in missing)
    unknown = sum(member.state == UNKNOWN for member in missing)
    if not missing or any(not member.task_id for member in missing):
        return "the ids of its members are not known"
    if ended + unknown < len(missing):
        return None
    told = {"ended, but not counted in": ended, "of which nothing is stored": unknown}
    return "waits for " + ", ".join(f"{count:,} {what}" for what, count in told.items() if count)
