"""Lost tasks: they have begun in a run of a worker that is gone, and have no outcome.

When a task began is told by the clock of its worker's host, and so is when the run of a worker began. So these two are
compared with each other, and whether a run is silent is told by the clock of the database alone: no host whose clock is
wrong makes a task seem lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from celery import states

from celery_sql_results.dialects import DefaultImpl, as_dicts
from celery_sql_results.models import not_succeeded

from .tasks import Row, TaskRows, batches

__all__ = ["Lost", "LostRows", "Suspect", "runs_of", "suspects_among"]

#: By how much a clock may be set back in one step without anybody noticing: small steps are what clocks are kept by.
MARGIN: Final = timedelta(seconds=1)
#: How long after it was seen last a run may have begun a task, if it was killed: twice the time between two beats.
#: What began later, somebody else has begun who does not say that he is alive, such as an older release of that name.
AFTER_LAST: Final = timedelta(seconds=40)
#: Tasks that are looked for at once.
LIMIT: Final = 500
#: Workers that one query asks for.
WORKERS: Final = 50
#: What is asked of a run.
_RUN = ("name", "run_id", "date_started", "date_seen", "clock", "date_ended")


class Suspect(NamedTuple):
    """A worker whose tasks are lost if they began ``before`` some time, by the clock of its host.

    Attributes:
        seen: when it was last seen, by the clock of the database.
        started: since when it runs again, by that of its host; ``None`` if it does not.
    """

    worker: str
    before: datetime
    seen: datetime
    started: datetime | None

    @property
    def why(self) -> str:
        """What was found, in words."""
        if self.started is not None:
            return f"worker {self.worker} was started anew at {_clock(self.started)}"
        return f"worker {self.worker} was last seen at {_clock(self.seen)}"


class Lost(NamedTuple):
    """A task that is lost, and ``why``."""

    task_id: str
    name: str | None
    date_started: datetime
    suspect: Suspect

    @property
    def worker(self) -> str:
        """Which worker ran it."""
        return self.suspect.worker

    @property
    def seen(self) -> datetime:
        """When that was last seen."""
        return self.suspect.seen

    @property
    def why(self) -> str:
        """What was found, in words: of the task and of its worker."""
        return f"it began at {_clock(self.date_started)}, and {self.suspect.why}"


def _clock(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


class LostRows:
    """The lost tasks of one backend. Finding them needs no more than the right to read its tables."""

    def __init__(self, tasks: TaskRows) -> None:
        self._tasks, self._impl, self._engine = tasks, tasks.impl, tasks.engine
        self._task, self._workers = tasks.models.task, tasks.models.workers

    def lost(self, older_than: timedelta, limit: int = LIMIT) -> list[Lost]:
        """So many tasks whose workers are gone for so long."""
        return self.of(self.suspects(older_than), limit)

    def suspects(self, older_than: timedelta) -> list[Suspect]:
        """The workers that are gone for so long, or have been running anew for so long.

        Of a name that nobody has ever run under, or that an older release runs under, nothing is known.
        """
        with self._impl.connect(self._engine) as connection:
            return list(suspects_among(as_dicts(connection.execute(runs_of(self._workers, self._impl, older_than)))))

    def of(self, suspects: Collection[Suspect], limit: int = LIMIT) -> list[Lost]:
        """So many tasks that began in runs of these workers which are gone."""
        if not {"worker", "date_started", "name"} <= self._tasks.columns:
            return []
        found: list[Lost] = []
        with self._impl.connect(self._engine) as connection:
            for some in batches(list(suspects), WORKERS):
                by_name = {suspect.worker: suspect for suspect in some}
                rows = connection.execute(self._begun_by(some).limit(limit - len(found)))
                found += [
                    Lost(row.task_id, row.name, row.date_started, by_name[row.worker])
                    for row in rows
                    if row.worker in by_name  # some databases take names for one that differ in case
                ]
                if len(found) >= limit:
                    break
        return found

    def end(self, lost: Lost, outcome: Row) -> bool:
        """Store the outcome of a lost task, unless anything has become of it meanwhile, and wake whoever waits for it.

        Return whether it was stored.
        """
        task = self._task.c
        same = (task.task_id == lost.task_id, task.worker == lost.worker, task.date_started == lost.date_started)
        known = {name: value for name, value in outcome.items() if name in self._tasks.columns}
        update = sa.update(self._task).where(*same, *self._is_started).values(known)
        with self._impl.connect(self._engine) as connection:
            if connection.execute(update).rowcount != 1:
                return False
        self._tasks.wake({"task_id": lost.task_id})
        return True

    @property
    def _is_started(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Constants are written into the text, for the index that leaves out what has succeeded."""
        return self._task.c.status == sa.literal_column(f"'{states.STARTED}'"), not_succeeded(self._task)

    def _begun_by(self, suspects: Collection[Suspect]) -> sa.Select[Any]:
        task = self._task.c
        theirs = (sa.and_(task.worker == each.worker, task.date_started < each.before) for each in suspects)
        return sa.select(task.task_id, task.name, task.date_started, task.worker).where(
            *self._is_started, sa.or_(*theirs)
        )


def runs_of(workers: sa.Table, impl: DefaultImpl, older_than: timedelta) -> sa.Select[Any]:
    """The runs of all workers, for :func:`suspects_among`."""
    runs, ago = workers.c, impl.now(-older_than)
    flags = {"is_silent": runs.date_seen < ago, "is_settled": runs.date_started < ago}
    asked = [sa.case((is_so, 1), else_=0).label(name) for name, is_so in flags.items()]
    return sa.select(*(runs[name] for name in _RUN), *asked).order_by(runs.name)


def suspects_among(runs: Collection[Row]) -> Iterator[Suspect]:
    """The workers whose tasks are lost."""
    for name, of_name in groupby(runs, lambda run: run["name"]):
        known = list(of_name)
        if any(
            not isinstance(run[column], datetime) for run in known for column in ("date_started", "date_seen", "clock")
        ):
            continue  # somebody else has written it
        there = [run for run in known if not run["is_silent"]]
        seen = max(run["date_seen"] for run in known)
        if not there:
            yield Suspect(name, max(map(_last, known)), seen, None)
        elif all(run["is_settled"] for run in there):  # each may have run what began after it did
            first = min(run["date_started"] for run in there)
            yield Suspect(name, first - MARGIN, seen, first)


def _last(run: Row) -> datetime:
    """Until when a run that is gone may have begun a task."""
    last: datetime = run["clock"]
    return last + (AFTER_LAST if run["date_ended"] is None else MARGIN)
