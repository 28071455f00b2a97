"""Delete what has expired, in batches that are committed one by one, so that nobody waits for a long delete."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from .dialects import DefaultImpl
from .models import Models, utc_now

__all__ = ["cleanup"]

#: Rows that one transaction deletes: enough to be quick, few enough to lock nobody out for long.
BATCH = 5_000


def cleanup(engine: Engine, impl: DefaultImpl, models: Models, expires: timedelta) -> int:
    """Delete the task and group rows that were done longer than ``expires`` ago, and return how many."""
    before = utc_now() - expires
    return sum(_delete_in_batches(engine, impl, table, before) for table in models.tables)


def _delete_in_batches(engine: Engine, impl: DefaultImpl, table: sa.Table, before: datetime) -> int:
    """Delete batch after batch. Where the database can, rows that another cleanup holds are left to it."""
    batch = sa.select(table.c.id).where(table.c.date_done < before).limit(BATCH)
    if impl.supports_skip_locked:
        batch = batch.with_for_update(skip_locked=True)
    # MySQL takes a LIMIT in a subquery only one level down.
    statement = sa.delete(table).where(table.c.id.in_(sa.select(batch.subquery().c.id)))
    deleted = 0
    while True:
        with impl.connect(engine) as connection:
            count = connection.execute(statement).rowcount
        deleted += count
        if count < BATCH:
            return deleted
