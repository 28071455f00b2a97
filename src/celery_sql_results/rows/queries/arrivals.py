"""Which results are new: those that were done since somebody looked last, also where they were committed late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from celery_sql_results.boundaries import caught
from celery_sql_results.rows.tasks import Row

from .asking import Asked, time_of
from .results import Filter, Results

__all__ = ["Arrivals"]

#: How much later than it was done a result may be committed, by clocks that do not agree, and still be seen.
LATE: Final = timedelta(seconds=10)
#: Results that one query reads.
AT_ONCE = 1_000


class Arrivals:
    """New results, each once, in the order of their ends.

    How far somebody has looked is told by the times of the results themselves, which are of the clocks of workers; a
    clock that is ahead of that of the database moves nobody on.

    Args:
        asked: the database.
        which: the results that are meant.
        since: where to begin; by default behind what is there.
    """

    def __init__(self, asked: Asked, which: Filter, since: datetime | None) -> None:
        self._asked, self._task = asked, asked.models.task
        self._results = Results(asked)
        self._which = replace(which, since=None)
        self._from, self._seen = since, dict[tuple[str, datetime], datetime]()
        self._is_new = since is None

    def look(self) -> Iterator[Row]:
        """What is new. Only what was taken counts as seen.

        Raises:
            TooLong: the database did not answer in time.
            sqlalchemy.exc.DBAPIError: it cannot be reached.
        """
        now, newest = self._times()
        if self._is_new:  # what is there, and may be read again, is not new
            self._from, self._is_new = newest - LATE, False
            for row in self._after(self._from):
                self._seen[row["task_id"], row["when"]] = row["when"]
            return
        begin = self._from or newest
        for row in self._after(begin):
            key = row["task_id"], row["when"]
            if key not in self._seen:
                self._seen[key] = row["when"]
                yield row
        self._from = max(begin, min(newest, now) - LATE)
        from_, seen = self._from, self._seen.items()
        self._seen = {key: when for key, when in seen if time_of(when) is None or when >= from_}

    def _times(self) -> tuple[datetime, datetime]:
        """The time of the database, and that of the newest result, if that is not later."""
        done, now = self._task.c.date_done, self._asked.impl.now()
        before = sa.select(done).where(done <= now).order_by(done.desc()).limit(1)
        [found] = self._asked.all(sa.select(now.label("now"), before.scalar_subquery().label("newest")))
        time = _time(found["now"])
        with caught(ValueError):  # a date that is none
            return time, _time(found["newest"] or time)
        return time, time

    def _after(self, begin: datetime) -> Iterator[Row]:
        """All that was done since a time, page by page."""
        done, id_ = self._task.c.date_done, self._task.c.id
        found = sa.select(*self._results.listed, done.label("when"))
        found = found.where(*self._results.conditions(self._which, done)).order_by(done, id_).limit(AT_ONCE)
        page = self._asked.all(found.where(done >= begin))
        while page:
            yield from page
            last = page[-1]
            later = sa.or_(done > last["when"], id_ > last["id"])
            page = self._asked.all(found.where(done >= last["when"], later)) if len(page) == AT_ONCE else []


def _time(value: Any) -> datetime:
    """A time, also where a driver gives it as text."""
    return (value if isinstance(value, datetime) else datetime.fromisoformat(value)).replace(tzinfo=None)
