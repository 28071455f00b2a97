"""How many of the ids of the tables are used, and when the last is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from celery_sql_results.dialects import DefaultImpl
from celery_sql_results.models import utc_now
from celery_sql_results.schema import State

from .finding import Finding, Level

__all__ = ["ids"]

#: What part of all ids may be used, and how soon they may run out, before somebody is told.
HALF, SOON = 0.5, timedelta(days=365)
#: How old the oldest row must be, before a rate can be told from it.
LONG_ENOUGH = timedelta(hours=1)
#: More days than that are not told.
LONG = timedelta(days=36_500)


def ids(connection: Connection, impl: DefaultImpl, state: State) -> Iterator[Finding]:
    """One finding for each table that has a last id."""
    for table in (state.models.task, state.models.group):
        largest = impl.tending.largest_id(connection, table) if state.tables[table].columns else None
        if largest is not None and "SELECT" not in state.tables[table].denied:
            yield _used(connection, table, largest)


def _used(connection: Connection, table: sa.Table, largest: int) -> Finding:
    highest = sa.select(sa.func.max(table.c.id)).scalar_subquery()
    query = sa.select(highest, table.c.id, table.c.date_done).where(table.c.date_done.is_not(None))
    row = connection.execute(query.order_by(table.c.date_done).limit(1)).first()
    used, first, age = (row[0] or 0, row[1], utc_now() - row[2].replace(tzinfo=None)) if row else (0, 0, timedelta())
    left = age * ((largest - used) / max(used - first, 1)) if age > LONG_ENOUGH and used > first else timedelta.max
    when = f", and at this rate the last is used in {left.days} days" if left < LONG else ""
    found = f"{100 * used // largest} % of the ids of {table.name} are used (up to {largest}){when}"
    if used > HALF * largest or left < SOON:
        return Finding("ids", found, Level.WRONG, to_do="let its column id be BIGINT, and its sequence, if it has one")
    return Finding("ids", found)
