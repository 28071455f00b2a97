"""A worker lets tasks fail that others have left behind, so that nobody waits for them for ever."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from celery.exceptions import WorkerLostError

from celery_sql_results.foreign import escaping
from celery_sql_results.rows import Database, Lost, LostRows, Row, Suspect

from .alive import HEARTBEAT, Heart

__all__ = ["LostTasks"]

logger = escaping(logging.getLogger(__name__))

#: Seconds for which a worker must stay silent while this one looks, and can say itself that it is alive: after an
#: outage of the database, all seem to have been silent for long, and each needs the time of a beat to say otherwise.
WATCHED: Final = 2 * HEARTBEAT
#: Tasks that end in one round.
MOST: Final = 500


class LostTasks:
    """Ends lost tasks of other workers, and of earlier runs of this one.

    Args:
        database: where they are.
        do: does what is read or written, by what the log calls it.
        outcome: the columns that tell of a failure, of the error and of the text of a traceback.
        heart: that of this worker.
        lost_after: how long a worker is silent before it is taken for dead.
        watched: see :data:`WATCHED`.
    """

    def __init__(
        self,
        database: Database,
        do: Callable[[str, Callable[[], Any]], Any],
        outcome: Callable[[BaseException, str], Row],
        heart: Heart,
        lost_after: timedelta,
        watched: float = WATCHED,
    ) -> None:
        self._database, self._do, self._outcome, self._heart = database, do, outcome, heart
        self._after, self._watched = lost_after, watched
        self._looked_at = -math.inf
        self._noticed: dict[Suspect, float] = {}
        self._checked: set[Suspect] = set()

    def __call__(self) -> int:
        """Look, if it is time, and return how many tasks have ended.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot be reached.
        """
        now = time.monotonic()
        if self._database.rows.workers is None or now - self._looked_at < min(HEARTBEAT, self._watched):
            return 0
        self._looked_at = now
        rows = LostRows(self._database.rows.tasks)
        found = self._do("looking for lost tasks", lambda: rows.suspects(self._after))
        self._noticed = {suspect: self._noticed.get(suspect, now) for suspect in found}
        self._checked &= self._noticed.keys()
        due = [suspect for suspect in found if suspect not in self._checked and self._is_due(suspect, now)]
        return self._end_all_of(rows, due) if due else 0

    def _is_due(self, suspect: Suspect, now: float) -> bool:
        return now - max(self._noticed[suspect], self._heart.well_since) >= self._watched

    def _end_all_of(self, rows: LostRows, due: list[Suspect]) -> int:
        lost = self._do("looking for lost tasks", lambda: rows.of(due, MOST))
        if len(lost) < MOST:
            self._checked.update(due)  # they begin no more, and without an index each look reads the whole table
        return sum(self._end(rows, each) for each in lost)

    def _end(self, rows: LostRows, lost: Lost) -> bool:
        told = f"the task is lost: {lost.why}, {self._after.total_seconds():g} s ago or more (database_lost_after)"
        outcome = self._outcome(WorkerLostError(told), f"celery.exceptions.WorkerLostError: {told}\n")
        is_ended: bool = self._do(f"ending lost task {lost.task_id}", lambda: rows.end(lost, outcome))
        if is_ended:
            logger.warning("task %s (%s) is lost, and has failed: %s", lost.task_id, lost.name, lost.why)
        return is_ended
