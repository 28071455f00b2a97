"""Chords that an operator ends: the body of one that is complete is sent, or fails for ever if that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from celery.exceptions import ChordError

from celery_sql_results.foreign import shown
from celery_sql_results.rows import Chord

from .calls import broker
from .changing import agreed, ended, may, through
from .desk import UNKNOWN, Desk, Ending

__all__ = ["kick"]

#: How many of the members that are missing are named.
NAMED = 5
#: What a body fails with.
GIVEN_UP = "ended by an operator: members of the header are missing, or the body cannot be sent"


@dataclass(frozen=True)
class _Found:
    """A chord, and why its body cannot be sent; ``None`` if it can.

    Attributes:
        missing: the places whose parts are missing, and have ended.
    """

    chord: Chord
    why: str | None
    missing: Sequence[tuple[str, int]] = ()


def kick(desk: Desk, ids: Sequence[str], yes: bool, dry_run: bool, fail: bool = False) -> int:
    """Send the bodies of chords that are complete and that nobody else ends, and return the exit code.

    Args:
        desk: has the database.
        ids: of the chords.
        yes: whether to ask nobody.
        dry_run: whether only to say what would be done.
        fail: whether the bodies of others are to fail, with a ``ChordError``: whoever waits for them learns of it.

    Raises:
        Ending: a chord is not known, or its body cannot be sent; nothing was done.
    """
    if not desk.asked.has(desk.backend.database.models.chords, "group_id", "body"):
        raise Ending("there are no tables of chords that this role may read: see check")
    found = [_look(desk, id_) for id_ in dict.fromkeys(ids)]
    done = [each for each in found if each.chord.is_dispatched]
    due = [each for each in found if not each.chord.is_dispatched]
    for each in done:
        desk.out.note(f"chord {shown(each.chord.group_id)}: its body was sent, or has failed")
    refused = [f"chord {shown(each.chord.group_id)}: {each.why}" for each in due if each.why]
    if refused and not fail:
        raise Ending(f"{'; '.join(refused)}. Nothing was done; --fail lets a body fail")
    bare = [shown(each.chord.group_id) for each in due if not _can_end(desk, each.chord)]
    if bare:
        raise Ending(f"chord {', '.join(bare)}: nothing of its body is kept, so it can be neither sent nor let fail")
    if dry_run or not due:
        return _dry(desk, due, dry_run)
    database = desk.backend.database
    may(desk, "UPDATE", database.models.chords)
    agreed(_told(due), yes)
    broker(desk)
    ended_, stopped = through(desk, "ending chords", len(due), _steps(desk, due))
    return ended(desk, f"ended {ended_} of {len(due)} chords", stopped, ended=ended_, counted=len(due))


def _rows(desk: Desk) -> Any:
    return desk.backend.database.rows.chords


def _services(desk: Desk) -> Any:
    """What hands chords over. To Celery, a backend has no such thing."""
    return desk.backend._services


def _look(desk: Desk, group_id: str) -> _Found:
    chord, claim = _rows(desk).look(group_id), _claim(desk, group_id)
    if chord is None:
        raise Ending(f"chord {shown(group_id)} is gone", UNKNOWN)
    if chord.is_dispatched:
        return _Found(chord, None)
    if claim is not None:
        return _Found(chord, f"a process is about to end it, and has until {desk.out.clock(claim)}")
    if not chord.is_complete:
        return _incomplete(desk, chord)
    if chord.body is None:
        return _Found(chord, "its body is not kept (JSON cannot write it), so that only a part could have sent it")
    return _Found(chord, None)


def _can_end(desk: Desk, chord: Chord) -> bool:
    """Whether a body is kept, or what lets it fail."""
    return chord.body is not None or _rows(desk).bare_body(chord.group_id) is not None


def _claim(desk: Desk, group_id: str) -> Any:
    """Until when somebody else has the chord, by the clock of the database; ``None`` if nobody has."""
    chords, now = desk.backend.database.models.chords.c, desk.asked.impl.now()
    held = sa.select(chords.claimed_until).where(chords.group_id == group_id, chords.claimed_until >= now)
    found = desk.asked.all(held)
    return found[0]["claimed_until"] if found else None


def _incomplete(desk: Desk, chord: Chord) -> _Found:
    members, group_id = _services(desk).members, chord.group_id
    missing = members.missing([group_id])[group_id]
    ended_ = members.ended({task_id for task_id, _ in missing})
    open_ = [task_id for task_id, _ in missing if task_id not in ended_]
    if missing and not open_ and chord.size:
        return _Found(chord, None, missing)
    known = desk.backend.states_of([task_id for task_id in open_ if task_id])
    named = [f"{shown(id_)} ({known.get(id_, 'no result')})" for id_ in open_[:NAMED] if id_]
    told = (
        f"{len(open_)} members are missing: {', '.join(named)}" if named else "which members are missing is not known"
    )
    return _Found(chord, told)


def _steps(desk: Desk, due: Sequence[_Found]) -> Iterator[int]:
    for each in due:
        is_done = _end(desk, each)
        if not is_done:
            desk.out.note(f"chord {shown(each.chord.group_id)}: another process ends it")
        yield int(is_done)


def _end(desk: Desk, found: _Found) -> bool:
    services, chord = _services(desk), found.chord
    if found.why is not None:
        return bool(services.hand_over.take_over(chord, wrong=ChordError(GIVEN_UP)))
    if found.missing:  # their parts were stored by somebody else, or deleted
        services.members.put_parts(chord.group_id, found.missing)
    counted = _rows(desk).counted(chord.group_id)
    return bool(counted is not None and counted.is_complete and services.hand_over.take_over(counted))


def _told(due: Sequence[_Found]) -> str:
    sent, failed = sum(each.why is None for each in due), sum(each.why is not None for each in due)
    parts = [f"send the bodies of {sent} chords"] * bool(sent) + [f"let the bodies of {failed} chords fail"] * bool(
        failed
    )
    return " and ".join(parts)


def _dry(desk: Desk, due: Sequence[_Found], dry_run: bool) -> int:
    if desk.out.form == "json":
        desk.out.json({"ended": 0, "counted": len(due), "dry_run": dry_run})
    elif due:
        desk.out.line(f"would {_told(due)}")
    return 0
