"""Which workers are alive, which are gone, and what those have left behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from celery import states

from celery_sql_results.rows.tasks import Row
from celery_sql_results.rows.workers import GONE_AFTER

from .asking import Asked
from .results import Filter, Page, Results

__all__ = ["ALIVE", "ENDED", "GONE", "Workers"]

#: What a run of a worker may be: it says that it is there; it has said that it ends; it has fallen silent.
ALIVE, ENDED, GONE = "alive", "ended", "gone"
#: Runs that are read of the workers whose tasks may be lost, and results that are looked at for lost ones.
RUNS, LOOKED_AT = 100_000, 20_000
#: Results that one query reads.
AT_ONCE = 1_000
#: What tells of a run whether it may have run a task.
_BY_RUN: Final = ("name", "date_started", "date_seen", "date_ended", "host", "pid")


class Workers:
    """The workers, as people ask for them.

    Args:
        asked: the database.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._workers = asked.models.workers

    @property
    def are_there(self) -> bool:
        """Whether there is a table of workers, which this role may read."""
        return self._asked.has(self._workers, *self._workers.columns.keys())

    def runs(self, limit: int) -> list[Row]:
        """So many runs of workers, with their ``state``: those that are alive first, then those that were seen last."""
        workers = self._workers.c
        found = sa.select(*workers, self._state.label("state"))
        order = sa.case((self._state == ALIVE, sa.literal_column("0")), else_=sa.literal_column("1"))
        return self._asked.all(found.order_by(order, workers.date_seen.desc(), workers.name).limit(limit))

    def without_row(self, since: datetime, limit: int) -> list[Row]:
        """Names of workers that have stored results since a time, and have no row, with when they did so ``last``.

        They are of an older release or of another backend, or do not do any upkeep.
        """
        task, workers, reads = self._asked.models.task, self._workers.c, self._asked.impl.reads
        name = self._asked.column(task, "worker").label("name")
        last = reads.function("max")(task.c.date_done, type_=task.c.date_done.type).label("last")
        seen = sa.select(name, last).where(task.c.date_done >= since, name.is_not(None)).group_by(name).subquery()
        known = sa.exists().where(workers.name == seen.c.name)
        found = sa.select(seen.c.name, seen.c.last).order_by(seen.c.name).limit(limit)
        return self._asked.all(found.where(~known) if self.are_there else found)

    def lost(self, which: Filter, limit: int) -> list[Row]:
        """So many of the results that a filter means, whose tasks began on a worker that is gone, and have not ended.

        Each has as ``run`` the last run of the worker that may have had it. As long as any of these is alive, a task is
        not lost.
        """
        which = which if which.states else replace(which, states=(states.STARTED,))
        runs: dict[str, list[Row]] = {}
        for run in self._asked.all(self._runs.limit(RUNS)):
            runs.setdefault(run["name"], []).append(run)
        found: list[Row] = []
        read, cursor, more = 0, None, True
        while more and len(found) < limit and read < LOOKED_AT:
            page: Page = Results(self._asked).page(which, AT_ONCE, cursor)
            found += _lost(page.rows, runs)
            read, cursor, more = read + len(page.rows), page.next, page.next is not None
        return found[:limit]

    # -- statements ----------------------------------------------------------------------------------------------

    @property
    def _runs(self) -> sa.Select[Any]:
        workers = self._workers.c
        found = sa.select(*(workers[name] for name in _BY_RUN), self._state.label("state"))
        return found.order_by(workers.date_seen.desc())

    @property
    def _state(self) -> sa.ColumnElement[str]:
        """By the clock of the database, which all of them are seen by."""
        workers, words = self._workers.c, (ENDED, GONE, ALIVE)
        ended, gone, alive = (sa.literal_column(f"'{word}'", sa.String) for word in words)
        is_late = workers.date_seen < self._asked.impl.now(-GONE_AFTER)
        return sa.case((workers.date_ended.is_not(None), ended), (is_late, gone), else_=alive)


def _lost(rows: Iterable[Row], runs: dict[str, list[Row]]) -> list[Row]:
    found: list[Row] = []
    for row in rows:
        began = row["date_started"]
        had = [run for run in runs.get(row["worker"], ()) if _may_have(run, began)]
        if row["date_done"] is None and had and all(run["state"] != ALIVE for run in had):
            found.append({**row, "run": had[0]})
    return found


def _may_have(run: Row, began: Any) -> bool:
    """Whether a task may have begun in a run: not before that, by the clock of the worker, which tells both times."""
    since = run["date_started"]
    return isinstance(began, datetime) and isinstance(since, datetime) and since <= began
