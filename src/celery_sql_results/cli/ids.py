"""Ids may be shortened, as long as one result alone is meant."""

from __future__ import annotations

from celery_sql_results.foreign import shown
from celery_sql_results.ids import asked_id
from celery_sql_results.rows.queries import Results

from .desk import UNKNOWN, Desk, Ending

__all__ = ["whole_id"]

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
