"""Ids may be shortened, as long as one result or one chord alone is meant."""

from __future__ import annotations

from celery_sql_results.foreign import shown
from celery_sql_results.ids import asked_id
from celery_sql_results.rows.queries import ChordQuestions, OpenedChord, Results

from .desk import UNKNOWN, Desk, Ending

__all__ = ["one_chord", "whole_id"]

#: How many of the ids that might be meant are told.
TOLD = 5


def whole_id(desk: Desk, text: str) -> str:
    """The id of the one result whose id this is, or begins with.

    Raises:
        Ending: there is none, or there are several.
    """
    id_ = asked_id(text)
    found = [] if id_ is None else Results(desk.asked).ids_like(id_, TOLD)
    if id_ in found:
        return id_
    if not found:
        raise Ending(
            f"no result has the id {shown(text)!r}: the task has not been run, or its result has expired", UNKNOWN
        )
    if found[1:]:
        raise Ending(f"several results have ids that begin with {shown(text)!r}: {', '.join(map(shown, found))}, …")
    return found[0]


def one_chord(questions: ChordQuestions, text: str) -> OpenedChord:
    """The one chord whose id this is, or begins with, also if its body was sent.

    Raises:
        Ending: there is none, or there are several.
    """
    id_ = asked_id(text)
    found = [] if id_ is None else questions.like(id_, TOLD)
    exact = [chord for chord in found if chord.group_id == id_] or found
    if not exact:
        raise Ending(f"no chord has the id {shown(text)!r}: it was not begun here, or has expired", UNKNOWN)
    if exact[1:]:
        several = ", ".join(shown(chord.group_id) for chord in exact)
        raise Ending(f"several chords have ids that begin with {shown(text)!r}: {several}")
    return exact[0]
