"""Rows that somebody has chosen are deleted, unless they have changed since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from celery_sql_results.dialects import DefaultImpl

from .tasks import Row

__all__ = ["delete_chosen", "unchanged"]

#: Rows of one statement: each is a condition of its own, and some databases take no more than a thousand of these.
BATCH = 500


def delete_chosen(engine: Engine, impl: DefaultImpl, task: sa.Table, rows: Sequence[Row]) -> Iterator[int]:
    """Delete rows of tasks that are still as they were read, in batches that are committed; yield how many these had.

    Args:
        engine: of the database, and ``impl`` how that is spoken to.
        task: the table.
        rows: ``id``, ``status`` and ``date_done`` of each.
    """
    size = min(BATCH, impl.max_parameters // 4)
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        ids = task.c.id.in_([row["id"] for row in some])
        these = sa.delete(task).where(ids, sa.or_(*(unchanged(task, row) for row in some)))
        with impl.connect(engine) as connection:
            deleted = connection.execute(these).rowcount
        yield max(deleted, 0)  # when it is committed: whoever takes it may ask for no more


def unchanged(task: sa.Table, row: Row) -> sa.ColumnElement[bool]:
    """Whether a row has still the state, and the time when it was done, that were read."""
    columns, done = task.c, row["date_done"]
    same: Any = columns.date_done == done if isinstance(done, datetime) else columns.date_done.is_(None)
    if done is not None and not isinstance(done, datetime):  # a date of zero, as some drivers give it
        same = sa.true()
    status = columns.status.is_(None) if row["status"] is None else columns.status == row["status"]
    return sa.and_(columns.id == row["id"], status, same)
