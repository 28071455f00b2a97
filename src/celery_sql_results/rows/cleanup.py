"""Delete what has expired, in batches that are committed one by one, so that nobody waits for a long delete."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from celery_sql_results.dialects import DefaultImpl, connected
from celery_sql_results.models import Models, utc_now

__all__ = ["delete_chords", "delete_results", "delete_waiters"]

#: Rows that one transaction deletes: enough to be quick, few enough to lock nobody out for long.
BATCH = 5_000
#: Chords that one transaction deletes, with all their parts.
CHORD_BATCH = 500
#: Whoever waits longer than this for one result is taken for dead; its row would only cost a notification.
LONGEST_WAIT = timedelta(days=1)


def delete_results(engine: Engine, impl: DefaultImpl, models: Models, expires: timedelta) -> int:
    """Delete the task and group rows that were done longer than ``expires`` ago, and return how many."""
    before = utc_now() - expires
    results = (models.task, models.group)
    return sum(_delete(engine, impl, table.c.id, table.c.date_done, before) for table in results)


def delete_chords(engine: Engine, impl: DefaultImpl, models: Models, expires: timedelta) -> int:
    """Delete the chords that began longer than ``expires`` ago, with their parts, and return how many."""
    deleted = 0
    chords, before = models.chords.c, utc_now() - expires
    for expired in _batches(engine, sa.select(chords.group_id).where(chords.date_created < before).limit(CHORD_BATCH)):
        with impl.connect(engine) as connection:
            connection.execute(sa.delete(models.parts).where(models.parts.c.group_id.in_(expired)))
            deleted += connection.execute(sa.delete(models.chords).where(chords.group_id.in_(expired))).rowcount
    return deleted


def delete_waiters(engine: Engine, impl: DefaultImpl, models: Models) -> int:
    """Delete what processes that died while they waited have left behind, and return how many."""
    waiters = models.waiters
    with impl.connect(engine) as connection:
        return connection.execute(sa.delete(waiters).where(waiters.c.date_added < utc_now() - LONGEST_WAIT)).rowcount


def _batches(engine: Engine, batch: sa.Select[Any]) -> Iterator[list[str]]:
    """The values that a query finds, again and again until it finds none: whoever takes them must delete them."""
    while True:
        with connected(engine) as connection:
            found = [key for (key,) in connection.execute(batch)]
        if not found:
            return
        yield found


def _delete(engine: Engine, impl: DefaultImpl, key: sa.Column[int], date: sa.Column[datetime], before: datetime) -> int:
    """Delete batch after batch. Where the database can, rows that another cleanup holds are left to it."""
    batch = sa.select(key).where(date < before).limit(BATCH)
    if impl.supports_skip_locked:
        batch = batch.with_for_update(skip_locked=True)
    # MySQL takes a LIMIT in a subquery only one level down.
    statement = sa.delete(key.table).where(key.in_(sa.select(batch.subquery().c.id)))
    deleted = 0
    while True:
        with impl.connect(engine) as connection:
            count = connection.execute(statement).rowcount
        deleted += count
        if count < BATCH:
            return deleted
