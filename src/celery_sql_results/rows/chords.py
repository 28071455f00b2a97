"""The rows of chords and their parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from celery import states
from sqlalchemy.engine import Engine

from celery_sql_results._compat import memoized_property
from celery_sql_results.dialects import DefaultImpl, Put, as_dicts, put_under_a_free_id
from celery_sql_results.ids import LONGEST
from celery_sql_results.models import Models, utc_now

from .tasks import Columns, batches

__all__ = ["ADDED", "Chord", "ChordRows", "OpenChord"]

#: The position of a row that is no part that has returned, but says that one more is awaited.
ADDED = -1
#: Bytes that an id takes among the members of a chord at most, all of it escaped; whoever writes rows can put more.
_WIDEST = 12 * LONGEST + 4
#: The states that no other part may replace, as of a task.
_FINAL = (states.SUCCESS,)


@dataclass(frozen=True)
class Chord:
    """How far a chord is.

    Attributes:
        size: how many parts it has at least: some may be added. 0 until it is known.
        header: only there if the structure of nested groups must be kept.
    """

    group_id: str
    size: int
    is_complete: bool
    header: bytes | None
    body: bytes | None
    content_type: str | None
    date_dispatched: datetime | None

    @property
    def is_dispatched(self) -> bool:
        """Whether the body was sent, or failed."""
        return self.date_dispatched is not None


class OpenChord(NamedTuple):
    """A chord whose body was not sent, without what may be large.

    Attributes:
        claim: who is elected, and until when; ``is_free`` if that is over, or nobody is.
        has_body: whether the body is kept, and ``has_members`` whether the ids of the header are.
    """

    group_id: str
    size: int
    is_complete: bool
    is_free: bool
    claimed_by: str | None
    claimed_until: datetime | None
    has_body: bool
    has_members: bool

    @property
    def claim(self) -> tuple[str | None, datetime | None]:
        """The claim, to see whether it has changed."""
        return self.claimed_by, self.claimed_until


class ChordRows:
    """The chords of one backend; see :class:`~.tasks.TaskRows` for the arguments."""

    def __init__(self, engine: Engine, impl: DefaultImpl, models: Models, columns: Columns) -> None:
        self.engine = engine
        self.impl = impl
        self.chords = models.chords
        self.parts = models.parts
        self._columns = columns[models.chords]
        self._put_chord, self._put_part = Put(models.chords, "group_id"), Put(models.parts, "task_id", _FINAL)
        self._claims: dict[tuple[timedelta, bool], sa.Executable] = {}

    def open(self, chord: Mapping[str, Any]) -> None:
        """Begin a chord. A signature that was frozen can be applied again under the same id: then it begins anew."""
        anew = dict.fromkeys(("claimed_by", "claimed_until", "date_dispatched"))
        with self.impl.connect_quickly(self.engine) as connection:
            # First, or a look that comes late would find the new chord complete by the old parts.
            connection.execute(self._delete_parts, {"group_id_": chord["group_id"]})
        with self.impl.connect_quickly(self.engine) as connection:
            row = {**chord, "date_created": utc_now(), **anew}
            there = {name: row[name] for name in row if name in self._columns}
            put_under_a_free_id(self.impl, connection, self._put_chord, there)

    def set_size(self, group_id: str, size: int) -> None:
        """Say how many parts there are, known when all but the last are sent. Only of a chord that was begun here.

        Nothing is written, and no disk waited for, where that was known from the beginning.
        """
        with self.impl.connect_quickly(self.engine) as connection:
            connection.execute(self._size, {"group_id_": group_id, "size_": size})

    def add(self, group_id: str, task_id: str) -> bool:
        """Await one part more, if there is such a chord. By a row of its own: it counts once if this is repeated."""
        none = dict.fromkeys(("result", "content_type"))
        self.put_part({"group_id": group_id, "task_id": task_id, "position": ADDED, "status": states.PENDING, **none})
        return self.counted(group_id) is not None  # without a chord, nothing is left

    def put_part(self, part: Mapping[str, Any]) -> None:
        """Store a part of a task whose result is not stored. It counts once, and replaces one that has failed."""
        with self.impl.connect_quickly(self.engine) as connection:
            put_under_a_free_id(self.impl, connection, self._put_part, part)

    def counted(self, group_id: str) -> Chord | None:
        """How far a chord is after a part was stored; ``None`` if there is no such chord.

        A look may be behind, such as one at a server that lags. What deletes parts looks by itself.
        """
        chord = self.look(group_id)
        if chord is None or chord.is_dispatched:  # a late copy of a part, or a chord of Celery's own backend
            with self.impl.connect_quickly(self.engine) as connection:
                connection.execute(self._delete_strays, {"group_id_": group_id})
        return chord

    def look(self, group_id: str) -> Chord | None:
        """How far a chord is. The count is a statement of its own: it must see what others have committed."""
        with self.impl.connect_quickly(self.engine) as connection:
            found = as_dicts(connection.execute(self._select, {"group_id_": group_id}))
        return Chord(**found[0]) if found else None

    def claim(self, group_id: str, claimant: str, lease: timedelta) -> bool:
        """Elect ``claimant`` for the length of a lease, or prolong its lease; ``False`` if another holds one."""
        return self._claimed(lease, False, {"group_id_": group_id, "claimant_": claimant})

    def claim_from(self, found: OpenChord, claimant: str, lease: timedelta) -> bool:
        """Elect ``claimant`` although another is elected, if that is still who was found; ``False`` if it is not."""
        values = {"group_id_": found.group_id, "claimant_": claimant, "claimed_by_": found.claimed_by}
        return self._claimed(lease, True, values)

    def _claimed(self, lease: timedelta, by_force: bool, values: Mapping[str, Any]) -> bool:
        statement = self._claims.get((lease, by_force))
        if statement is None:  # built once, since a lease is as long as the settings say
            statement = self._claims[lease, by_force] = self._claim(lease, by_force)
        with self.impl.connect_quickly(self.engine) as connection:
            return connection.execute(statement, values).rowcount == 1  # type: ignore[no-any-return]

    def touch(self, group_id: str) -> None:
        """Raise if somebody holds the row and the database can tell at once, rather than wait for it."""
        if self.impl.supports_nowait:
            mine = sa.select(sa.true()).where(self.chords.c.group_id == group_id)
            with self.impl.connect(self.engine) as connection:
                connection.execute(mine.with_for_update(nowait=True))

    def results(self, group_id: str) -> list[Mapping[str, Any]]:
        """The parts in the order of the header, in one query."""
        with self.impl.connect_quickly(self.engine) as connection:
            return as_dicts(connection.execute(self._select_parts, {"group_id_": group_id}))

    def close(self, group_id: str, claimant: str) -> None:
        """The body was sent, or failed: forget the parts. The chord stays until it expires, to know late copies."""
        values = {"group_id_": group_id, "claimant_": claimant}
        with self.impl.connect_quickly(self.engine) as connection:
            if connection.execute(self._close, values).rowcount == 1:  # else another has the chord, and needs them
                connection.execute(self._delete_parts, {"group_id_": group_id})

    def opened(self, after: str, limit: int) -> list[OpenChord]:
        """So many chords whose body was not sent, in the order of their ids, from the one ``after`` an id on."""
        with self.impl.connect(self.engine) as connection:
            found = as_dicts(connection.execute(self._opened.limit(limit), {"after_": after}))
        return [OpenChord(**row) for row in found]

    def members_of(self, group_ids: Collection[str]) -> dict[str, bytes]:
        """The ids of the headers of chords, as they were stored."""
        chords = self.chords.c
        statement = sa.select(chords.group_id, chords.members).where(self.impl.one_of(chords.group_id))
        with self.impl.connect(self.engine) as connection:
            found = (connection.execute(statement, {"ids_": ids}) for ids in self._batches(group_ids))
            return {group_id: members for rows in found for group_id, members in rows}

    def parts_of(self, group_ids: Collection[str]) -> dict[str, list[tuple[str, int]]]:
        """The task and the position of each part of chords, also of those that were added."""
        parts = self.parts.c
        statement = sa.select(parts.group_id, parts.task_id, parts.position).where(self.impl.one_of(parts.group_id))
        found: dict[str, list[tuple[str, int]]] = {id_: [] for id_ in group_ids}
        with self.impl.connect(self.engine) as connection:
            for ids in self._batches(group_ids):
                for group_id, task_id, position in connection.execute(statement, {"ids_": ids}):
                    found[group_id].append((task_id, position))
        return found

    def _batches(self, group_ids: Collection[str]) -> Iterator[Sequence[str]]:
        return batches(list(group_ids), self.impl.max_parameters)

    def bare_body(self, group_id: str) -> bytes | None:
        """What is needed to let a body fail that is not kept, if that is."""
        if "bare_body" not in self._columns:
            return None
        statement = sa.select(self.chords.c.bare_body).where(self.chords.c.group_id == group_id)
        with self.impl.connect(self.engine) as connection:
            return connection.execute(statement).scalar()

    # -- statements ----------------------------------------------------------------------------------------------

    @memoized_property
    def _update(self) -> sa.Update:
        return sa.update(self.chords).where(self.chords.c.group_id == sa.bindparam("group_id_"))

    @memoized_property
    def _size(self) -> sa.Update:
        size = sa.bindparam("size_", type_=sa.Integer)
        return self._update.where(self.chords.c.size.is_distinct_from(size)).values(size=size)

    def _claim(self, lease: timedelta, by_force: bool) -> sa.Executable:
        """By the clock of the database, so that no host whose clock is wrong ends a lease early or prolongs it."""
        chords, claimant = self.chords.c, sa.bindparam("claimant_", type_=self.chords.c.claimed_by.type)
        if by_force:
            held_by = sa.bindparam("claimed_by_", type_=chords.claimed_by.type)
            allowed: sa.ColumnElement[bool] = chords.claimed_by.is_not_distinct_from(held_by)
        else:
            allowed = sa.or_(self._is_free, chords.claimed_by == claimant)
        claimed = self._update.where(chords.date_dispatched.is_(None), allowed)
        # If a crash undoes it, at worst another process sends the body as well.
        return self.impl.unsynced(claimed.values(claimed_by=claimant, claimed_until=self.impl.now(lease)))

    @property
    def _is_free(self) -> sa.ColumnElement[bool]:
        return sa.or_(self.chords.c.claimed_until.is_(None), self.chords.c.claimed_until < self.impl.now())

    @memoized_property
    def _close(self) -> sa.Executable:
        mine = self._update.where(self.chords.c.claimed_by == sa.bindparam("claimant_"))
        emptied = {name: sa.null() for name in ("body", "header", "members", "bare_body") if name in self._columns}
        # What deletes the parts is synced, and this with it.
        return self.impl.unsynced(mine.values(date_dispatched=self.impl.now(), **emptied))

    @memoized_property
    def _is_complete(self) -> sa.ColumnElement[bool]:
        """Every part has returned, also those that were added, and nobody has sent the body.

        Constants are written into the text: bound ones make the count, which reads many rows, much slower.
        """
        chords, parts, text = self.chords.c, self.parts.c, sa.literal_column
        count = sa.case((parts.position == text(f"{ADDED}"), text("-1")), else_=text("1"))
        returned = sa.select(sa.func.coalesce(sa.func.sum(count), text("0"))).where(parts.group_id == chords.group_id)
        return sa.and_(chords.date_dispatched.is_(None), chords.size <= returned.scalar_subquery())

    @memoized_property
    def _all(self) -> sa.Select[Any]:
        chords = self.chords.c
        return sa.select(
            chords.group_id,
            sa.func.coalesce(chords.size, 0).label("size"),
            _flag(self._is_complete).label("is_complete"),
            chords.header,
            chords.body,
            chords.content_type,
            chords.date_dispatched,
        )

    @memoized_property
    def _opened(self) -> sa.Select[Any]:
        """The order begins with what is NULL in all of them, so that no database reads along the ids of all chords."""
        chords = self.chords.c
        has_members: sa.ColumnElement[bool] = sa.false()
        if "members" in self._columns:  # what is longer than the ids of the header, nobody reads
            has_members = self.impl.size_of(chords.members) <= chords.size * sa.literal_column(f"{_WIDEST}")
        found = sa.select(
            chords.group_id,
            sa.func.coalesce(chords.size, 0).label("size"),
            _flag(self._is_complete).label("is_complete"),
            _flag(self._is_free).label("is_free"),
            chords.claimed_by,
            chords.claimed_until,
            _flag(chords.body.is_not(None)).label("has_body"),
            _flag(has_members).label("has_members"),
        )
        after = chords.group_id > sa.bindparam("after_", type_=chords.group_id.type)
        return found.where(chords.date_dispatched.is_(None), after).order_by(chords.date_dispatched, chords.group_id)

    @memoized_property
    def _select(self) -> sa.Select[Any]:
        return self._all.where(self.chords.c.group_id == sa.bindparam("group_id_"))

    @memoized_property
    def _select_parts(self) -> sa.Select[Any]:
        parts = self.parts.c
        columns = (parts.task_id, parts.status, parts.result, parts.content_type)
        statement = sa.select(*columns).where(parts.group_id == sa.bindparam("group_id_"), parts.position != ADDED)
        return statement.order_by(parts.position, parts.task_id)

    @memoized_property
    def _delete_parts(self) -> sa.Delete:
        return sa.delete(self.parts).where(self.parts.c.group_id == sa.bindparam("group_id_"))

    @memoized_property
    def _delete_strays(self) -> sa.Delete:
        """The same, unless there is a chord that awaits them."""
        chords = self.chords.c
        awaiting = sa.exists().where(chords.group_id == self.parts.c.group_id, chords.date_dispatched.is_(None))
        return self._delete_parts.where(~awaiting)


def _flag(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether it is true, where it may be NULL; some databases select no conditions."""
    return sa.case((condition, sa.true()), else_=sa.false())
