"""Which workers are alive, which are gone, and what those have left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
from celery import states

from celery_sql_results.rows.lost import Suspect, runs_of, suspects_among
from celery_sql_results.rows.tasks import Row
from celery_sql_results.rows.workers import GONE_AFTER

from .asking import Asked
from .results import Filter, Page, Results

__all__ = ["ALIVE", "ENDED", "GONE", "Workers"]

#: What a run of a worker may be: it says that it is there; it has said that it ends; it has fallen silent.
ALIVE, ENDED, GONE = "alive", "ended", "gone"
#: Results that are looked at for lost ones.
LOOKED_AT = 20_000
#: Results that one query reads.
AT_ONCE = 1_000


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
        """So many of the results that a filter means, whose tasks are lost, each with its ``suspect``.

        By the rules of :mod:`~celery_sql_results.rows.lost`, for workers that are silent for a minute.
        """
        which = which if which.states else replace(which, states=(states.STARTED,))
        runs = self._asked.all(runs_of(self._workers, self._asked.impl, GONE_AFTER))
        suspects = {suspect.worker: suspect for suspect in suspects_among(runs)}
        found: list[Row] = []
        read, cursor, more = 0, None, bool(suspects)
        while more and len(found) < limit and read < LOOKED_AT:
            page: Page = Results(self._asked).page(which, AT_ONCE, cursor)
            found += _lost(page.rows, suspects)
            read, cursor, more = read + len(page.rows), page.next, page.next is not None
        return found[:limit]

    # -- statements ----------------------------------------------------------------------------------------------

    @property
    def _state(self) -> sa.ColumnElement[str]:
        """By the clock of the database, which all of them are seen by."""
        workers, words = self._workers.c, (ENDED, GONE, ALIVE)
        ended, gone, alive = (sa.literal_column(f"'{word}'", sa.String) for word in words)
        is_late = workers.date_seen < self._asked.impl.now(-GONE_AFTER)
        return sa.case((workers.date_ended.is_not(None), ended), (is_late, gone), else_=alive)


def _lost(rows: Iterable[Row], suspects: Mapping[str, Suspect]) -> Iterator[Row]:
    for row in rows:
        suspect, began = suspects.get(row["worker"]), row["date_started"]
        if suspect is not None and row["date_done"] is None and isinstance(began, datetime) and began < suspect.before:
            yield {**row, "suspect": suspect}
