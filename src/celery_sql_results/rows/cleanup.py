"""Delete what has expired, in batches that are committed one by one, so that nobody waits for a long delete.

What has expired is told by the clock of the database, where it can be had: that of a host may be hours ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Engine

from celery_sql_results.dialects import DefaultImpl, connected
from celery_sql_results.models import Models

__all__ = ["delete_chords", "delete_done", "delete_results", "delete_waiters"]

#: Rows that one transaction deletes: enough to be quick, few enough to lock nobody out for long.
BATCH = 5_000
#: Chords that are looked for at once. Their parts are deleted in batches of rows.
CHORD_BATCH = 500
#: Where a server ends statements that take long, batches are halved down to so many rows.
LEAST = 10
#: Seconds after which a row of a waiter that nobody has renewed is taken for that of a dead process. Whoever waits
#: renews his every 20 s, and finds his result by himself if it was deleted all the same.
RENEWED_WITHIN = 60.0


#: Is told how many rows each batch had; it may raise to end a cleanup.
Told = Callable[[int], object]


def _nobody(deleted: int) -> None:
    """Is told, and does nothing."""


def delete_results(engine: Engine, impl: DefaultImpl, models: Models, expires: timedelta) -> int:
    """Delete the task and group rows that were done longer than ``expires`` ago, and return how many."""
    return sum(delete_done(engine, impl, table, expires) for table in (models.task, models.group))


def delete_done(
    engine: Engine,
    impl: DefaultImpl,
    table: sa.Table,
    expires: timedelta,
    tell: Told = _nobody,
    only: sa.ColumnElement[bool] | None = None,
) -> int:
    """Delete the rows of one of these tables that were done longer than ``expires`` ago, and return how many.

    ``only`` is what else must be true of them.
    """
    expired = table.c.date_done < impl.now(-expires)
    return _delete(engine, impl, table.c.id, expired if only is None else sa.and_(expired, only), tell)


def delete_chords(engine: Engine, impl: DefaultImpl, models: Models, expires: timedelta, tell: Told = _nobody) -> int:
    """Delete the chords that began longer than ``expires`` ago, with their parts, and return how many."""
    chords, expired = models.chords.c, models.chords.c.date_created < impl.now(-expires)

    def some(limit: int) -> tuple[int, bool]:
        found = _found(engine, sa.select(chords.group_id).where(expired).limit(limit))
        _delete_parts(engine, impl, models.parts, found)
        with impl.connect(engine) as connection:
            these = sa.delete(models.chords).where(impl.one_of(chords.group_id))
            deleted = connection.execute(these, {"ids_": found}).rowcount
        return deleted, not found

    return _in_batches(impl, min(CHORD_BATCH, impl.max_parameters // 2), some, tell, least=1)


def delete_waiters(engine: Engine, impl: DefaultImpl, models: Models) -> int:
    """Delete what processes that died while they waited have left behind, and return how many."""
    with impl.connect(engine) as connection:
        return connection.execute(impl.sweep(models.waiters), {"seconds_": RENEWED_WITHIN}).rowcount


def _delete(engine: Engine, impl: DefaultImpl, key: sa.Column[int], expired: sa.ColumnElement[bool], tell: Told) -> int:
    """Delete batch after batch. Where the database can, rows that another cleanup holds are left to it."""
    short = 0

    def some(limit: int) -> tuple[int, bool]:
        nonlocal short
        with impl.connect(engine) as connection:
            count = impl.delete_some(connection, key, expired, limit)
        short = short + 1 if count < limit else 0
        return count, short > impl.silent_ends

    return _in_batches(impl, BATCH, some, tell)


def _delete_parts(engine: Engine, impl: DefaultImpl, parts: sa.Table, group_ids: list[str]) -> None:
    """Delete the parts of chords, however many a chord has: those of so many tasks at once."""
    of_chords, of_tasks = impl.one_of(parts.c.group_id), impl.one_of(parts.c.task_id, "tasks_")

    def some(limit: int) -> tuple[int, bool]:
        chosen = {"ids_": group_ids}
        tasks = _found(engine, sa.select(parts.c.task_id).where(of_chords).limit(limit), chosen)
        with impl.connect(engine) as connection:
            these = sa.delete(parts).where(of_chords, of_tasks)
            deleted = connection.execute(these, {**chosen, "tasks_": tasks}).rowcount
        return deleted, len(tasks) < limit

    _in_batches(impl, min(BATCH, impl.max_parameters - len(group_ids)), some)


def _found(engine: Engine, batch: sa.Select[Any], values: Mapping[str, Any] | None = None) -> list[str]:
    with connected(engine) as connection:
        return list(connection.scalars(batch, values))


def _in_batches(
    impl: DefaultImpl, size: int, delete: Callable[[int], tuple[int, bool]], tell: Told = _nobody, least: int = LEAST
) -> int:
    """Delete some, again and again until that was all. A batch that takes the server too long is halved."""
    total, is_all = 0, False
    while not is_all:
        try:
            deleted, is_all = delete(size)
        except exc.DBAPIError as error:
            if size <= least or not impl.is_timed_out(error):
                raise
            size = max(size // 2, least)
        else:
            total += deleted
            tell(deleted)
    return total
