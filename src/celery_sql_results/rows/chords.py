"""The rows of chords and their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from celery import states
from sqlalchemy.engine import Engine

from celery_sql_results._compat import memoized_property
from celery_sql_results.dialects import DefaultImpl, Put, as_dicts
from celery_sql_results.models import Models, utc_now

__all__ = ["Chord", "ChordRows"]

#: The position of a row that is no part that has returned, but says that one more is awaited.
ADDED = -1


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


class ChordRows:
    """The chords of one backend."""

    def __init__(self, engine: Engine, impl: DefaultImpl, models: Models) -> None:
        self.engine = engine
        self.impl = impl
        self.chords = models.chords
        self.parts = models.parts
        self._put_chord, self._put_part = Put(models.chords, "group_id"), Put(models.parts, "task_id")

    def open(self, chord: Mapping[str, Any]) -> None:
        """Begin a chord. A signature that was frozen can be applied again under the same id: then it begins anew."""
        anew = dict.fromkeys(("claimed_by", "claimed_until", "date_dispatched"))
        with self.impl.connect_quickly(self.engine) as connection:
            # First, or a look that comes late would find the new chord complete by the old parts.
            connection.execute(self._delete_parts, {"group_id_": chord["group_id"]})
            self.impl.put(connection, self._put_chord, {**chord, "date_created": utc_now(), **anew})

    def set_size(self, group_id: str, size: int) -> None:
        """Say how many parts there are, known when all but the last are sent. Only of a chord that was begun here.

        Nothing is written, and no disk waited for, where that was known from the beginning.
        """
        with self.impl.connect_quickly(self.engine) as connection:
            connection.execute(self._size, {"group_id_": group_id, "size_": size})

    def add(self, group_id: str, task_id: str) -> None:
        """Await one part more. A row of its own, so that it counts once, however often this is repeated."""
        none = dict.fromkeys(("result", "content_type"))
        self.put_part({"group_id": group_id, "task_id": task_id, "position": ADDED, "status": states.PENDING, **none})
        self.counted(group_id)  # without a chord, it leaves nothing

    def put_part(self, part: Mapping[str, Any]) -> None:
        """Store a part, once, of a task whose result is not stored."""
        with self.impl.connect_quickly(self.engine) as connection:
            self.impl.put_once(connection, self._put_part, part)

    def counted(self, group_id: str) -> Chord | None:
        """How far a chord is after a part was stored; ``None`` if there is no such chord."""
        chord = self.look(group_id)
        if chord is None or chord.is_dispatched:  # a late copy of a part, or a chord of Celery's own backend
            with self.impl.connect_quickly(self.engine) as connection:
                connection.execute(self._delete_parts, {"group_id_": group_id})
        return chord

    def look(self, group_id: str) -> Chord | None:
        """How far a chord is. The count is a statement of its own: it must see what others have committed."""
        with self.impl.connect_quickly(self.engine) as connection:
            found = as_dicts(connection.execute(self._select, {"group_id_": group_id}))
        return Chord(**found[0]) if found else None

    def claim(self, group_id: str, claimant: str, lease: timedelta) -> bool:
        """Elect ``claimant`` for the length of a lease, or prolong its lease; ``False`` if another holds one."""
        now = utc_now()
        values = {"group_id_": group_id, "claimant_": claimant, "now_": now, "until_": now + lease}
        with self.impl.connect_quickly(self.engine) as connection:
            return connection.execute(self._claim, values).rowcount == 1  # type: ignore[no-any-return]

    def results(self, group_id: str) -> list[Mapping[str, Any]]:
        """The parts in the order of the header, in one query."""
        with self.impl.connect_quickly(self.engine) as connection:
            return as_dicts(connection.execute(self._select_parts, {"group_id_": group_id}))

    def close(self, group_id: str, claimant: str) -> None:
        """The body was sent, or failed: forget the parts. The chord stays until it expires, to know late copies."""
        values = {"group_id_": group_id, "claimant_": claimant, "now_": utc_now()}
        with self.impl.connect_quickly(self.engine) as connection:
            if connection.execute(self._close, values).rowcount == 1:  # else another has the chord, and needs them
                connection.execute(self._delete_parts, {"group_id_": group_id})

    def stuck(self) -> list[Chord]:
        """Complete chords that nobody claimed, or whose claimant let its lease pass, if others can send the body."""
        columns = self.chords.c
        unclaimed = sa.or_(columns.claimed_until.is_(None), columns.claimed_until < utc_now())
        statement = self._all.where(unclaimed, columns.body.is_not(None), self._is_complete)
        with self.impl.connect(self.engine) as connection:
            return [Chord(**row) for row in as_dicts(connection.execute(statement))]

    # -- statements ----------------------------------------------------------------------------------------------

    @memoized_property
    def _update(self) -> sa.Update:
        return sa.update(self.chords).where(self.chords.c.group_id == sa.bindparam("group_id_"))

    @memoized_property
    def _size(self) -> sa.Update:
        size = sa.bindparam("size_", type_=sa.Integer)
        return self._update.where(self.chords.c.size.is_distinct_from(size)).values(size=size)

    @memoized_property
    def _claim(self) -> sa.Executable:
        chords, claimant = self.chords.c, sa.bindparam("claimant_", type_=self.chords.c.claimed_by.type)
        passed = chords.claimed_until < sa.bindparam("now_")
        free = sa.or_(chords.claimed_until.is_(None), passed, chords.claimed_by == claimant)
        open_and_free = self._update.where(chords.date_dispatched.is_(None), free)
        # If a crash undoes it, at worst another process sends the body as well.
        return self.impl.unsynced(open_and_free.values(claimed_by=claimant, claimed_until=sa.bindparam("until_")))

    @memoized_property
    def _close(self) -> sa.Executable:
        mine = self._update.where(self.chords.c.claimed_by == sa.bindparam("claimant_"))
        closed = mine.values(date_dispatched=sa.bindparam("now_"), body=sa.null(), header=sa.null())
        return self.impl.unsynced(closed)  # what deletes the parts is synced, and this with it

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
            sa.case((self._is_complete, sa.true()), else_=sa.false()).label("is_complete"),
            chords.header,
            chords.body,
            chords.content_type,
            chords.date_dispatched,
        )

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
