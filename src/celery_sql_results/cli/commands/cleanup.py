"""``cleanup``: what has expired is deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import click
import sqlalchemy as sa

from celery_sql_results.cli.changing import agreed, changing, ended, may, progress, stoppable
from celery_sql_results.cli.desk import Desk, Ending, verb
from celery_sql_results.cli.filters import as_state
from celery_sql_results.cli.output import Column
from celery_sql_results.cli.times import DURATION
from celery_sql_results.rows import delete_chords, delete_waiters
from celery_sql_results.rows.cleanup import RENEWED_WITHIN, Told, delete_done
from celery_sql_results.rows.queries import Filter, Results

__all__ = ["command"]

COLUMNS = (
    *(Column("table", "table"), Column("what", "what"), Column("after", "expires after", form="seconds")),
    *(Column("rows", "rows", form="number"), Column("seconds", "took", 80, "seconds")),
    Column("per_second", "rows/s", 80, "number"),
)


class _Stopped(Exception):
    """Somebody wants no more to be deleted."""


class _Policy:
    """What expires of one table."""

    def __init__(
        self, what: str, table: sa.Table, after: timedelta, expired: Any, delete: Callable[[Told], int]
    ) -> None:
        self.what, self.table, self.after, self.expired, self.delete = what, table, after, expired, delete

    def row(self, **more: Any) -> dict[str, Any]:
        """How it is shown."""
        return {"table": self.table.name, "what": self.what, "after": self.after.total_seconds(), **more}


@verb("cleanup", acts=True)
@click.option("--older-than", type=DURATION, metavar="TIME", help="Results done so long ago, not after result_expires.")
@click.option("--state", multiple=True, metavar="STATE", help="Only results in this state; may be given several times.")
@click.option("--task", "name", metavar="GLOB", help="Only results of tasks with such names.")
@changing
def command(
    desk: Desk, older_than: float | None, state: Sequence[str], name: str | None, dry_run: bool, yes: bool
) -> int:
    """Delete what has expired, as a worker's beat does it: results after result_expires, chords after
    result_chord_expires, and what processes have left behind that died while they waited.

    With --state or --task, only such results. Several may clean up at the same time, if the database lets each skip
    what another one has: none waits.
    """
    which = Filter(states=tuple(map(as_state, state)), name=name)
    policies = _policies(desk, older_than, which)
    if dry_run:
        return _dry(desk, policies)
    may(desk, "DELETE", *(policy.table for policy in policies))
    what = ", ".join(f"{policy.what} after {_days(policy.after)}" for policy in policies)
    agreed(f"delete what has expired ({what})", yes)
    return _clean(desk, policies)


def _policies(desk: Desk, older_than: float | None, which: Filter) -> list[_Policy]:
    """What expires, and when.

    Raises:
        Ending: no result does.
    """
    database, settings = desk.backend.database, desk.backend.settings
    expires = settings.expires if older_than is None else timedelta(seconds=older_than)
    is_filtered = which != Filter()
    if expires is None and (is_filtered or not settings.chord_expires):
        raise Ending("no result expires (result_expires is not set here): give --older-than")
    found = []
    if expires is not None:
        found = [_results(desk, expires, which)] if is_filtered else [_results(desk, expires), _groups(desk, expires)]
    if is_filtered:
        return found
    models, has = database.models, desk.asked.has
    if settings.chord_expires is not None and has(models.chords, "date_created") and has(models.parts, "task_id"):
        found.append(_chords(desk, settings.chord_expires))
    if has(models.waiters, "date_added"):
        found.append(_waiters(desk))
    return found


def _results(desk: Desk, expires: timedelta, which: Filter | None = None) -> _Policy:
    only = None if which is None else Results(desk.asked).expired(which)
    return _done(desk, "results", desk.backend.database.models.task, expires, only)


def _groups(desk: Desk, expires: timedelta) -> _Policy:
    return _done(desk, "groups", desk.backend.database.models.group, expires)


def _done(desk: Desk, what: str, table: sa.Table, expires: timedelta, only: Any = None) -> _Policy:
    database = desk.backend.database
    expired = table.c.date_done < database.impl.now(-expires)
    delete = partial(delete_done, database.engine, database.impl, table, expires, only=only)
    return _Policy(what, table, expires, expired if only is None else sa.and_(expired, only), delete)


def _chords(desk: Desk, expires: timedelta) -> _Policy:
    database = desk.backend.database
    expired = database.models.chords.c.date_created < database.impl.now(-expires)
    delete = partial(delete_chords, database.engine, database.impl, database.models, expires)
    return _Policy("chords", database.models.chords, expires, expired, delete)


def _waiters(desk: Desk) -> _Policy:
    database, expires = desk.backend.database, timedelta(seconds=RENEWED_WITHIN)
    expired = database.models.waiters.c.date_added < database.impl.now(-expires)

    def delete(tell: Told) -> int:
        deleted = delete_waiters(database.engine, database.impl, database.models)
        tell(deleted)
        return deleted

    return _Policy("waiters", database.models.waiters, expires, expired, delete)


def _dry(desk: Desk, policies: Sequence[_Policy]) -> int:
    """Say how much has expired: a count along an index, within the time limit of a question."""
    rows = []
    for policy in policies:
        [found] = desk.asked.all(
            sa.select(sa.func.count().label("rows")).select_from(policy.table).where(policy.expired)
        )
        rows.append(policy.row(rows=found["rows"], dry_run=True))
    desk.out.rows(COLUMNS[:4], rows)
    return 0


def _clean(desk: Desk, policies: Sequence[_Policy]) -> int:
    rows: list[dict[str, Any]] = []
    total = 0
    with stoppable() as is_stopped, progress(desk, "deleting", None) as told:

        def tell(deleted: int) -> None:
            nonlocal total
            total += deleted
            told(total)
            if is_stopped():
                raise _Stopped

        for policy in policies:
            began, before = time.monotonic(), total
            with suppress(_Stopped):
                policy.delete(tell)
            took, deleted = time.monotonic() - began, total - before
            rows.append(policy.row(rows=deleted, seconds=took, per_second=round(deleted / max(took, 0.001))))
            if is_stopped():
                break
        stopped = is_stopped()
    desk.out.rows(COLUMNS, rows)
    return ended(desk, f"deleted {total:,} rows", stopped, deleted=total)


def _days(after: timedelta) -> str:
    return f"{after.days} d" if after.days and not after.seconds else f"{after.total_seconds():g} s"
