"""What failed, how often, and since when: failures grouped by their exception and task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from celery import states

from celery_sql_results.rows.tasks import Row

from .asking import Asked, time_of
from .results import Filter, Page, Results

__all__ = ["FailureGroup", "Failures", "Grouped"]

#: Failures that are read at most, and how many at once.
MOST, AT_ONCE = 10_000, 1_000
#: A time before all others.
NEVER = datetime(1, 1, 1)  # noqa: DTZ001


@dataclass
class FailureGroup:
    """Failures of one task with one exception.

    Attributes:
        exception: the class, without its module, where that is told; ``name`` is that of the task.
        count: how many there are, from ``first`` to ``last``.
        task_id: the latest of them, and ``error`` the last line of its traceback.
    """

    exception: str | None
    name: str | None
    count: int
    first: datetime | None
    last: datetime | None
    task_id: str
    error: str | None


class Grouped(NamedTuple):
    """Groups, those of most failures first; ``read`` failures were looked at, and ``is_all`` if there are no more."""

    groups: list[FailureGroup]
    read: int
    is_all: bool


class Failures:
    """The failures, as people ask for them.

    Args:
        asked: the database.
        raised: the class of the exception of a row of a list, and the last line of the traceback.
    """

    def __init__(self, asked: Asked, raised: Callable[[Row], tuple[str | None, str | None]]) -> None:
        self._results = Results(asked)
        self._raised = raised

    def grouped(self, which: Filter, most: int = MOST) -> Grouped:
        """The newest failures that a filter means, up to so many.

        Raises:
            TooLong: the database did not answer in time.
        """
        which = which if which.states else replace(which, states=(states.FAILURE,))
        found: dict[tuple[str | None, str | None], FailureGroup] = {}
        read, cursor, more = 0, None, True
        while more and read < most:
            page: Page = self._results.page(which, min(AT_ONCE, most - read), cursor)
            for row in page.rows:
                self._count(found, row)
            read, cursor, more = read + len(page.rows), page.next, page.next is not None
        groups = sorted(found.values(), key=lambda group: (group.count, group.last or NEVER), reverse=True)
        return Grouped(groups, read, not more)

    def _count(self, found: dict[tuple[str | None, str | None], FailureGroup], row: Row) -> None:
        """One more, which is older than all before."""
        exception, error = self._raised(row)
        group = found.get((exception, row["name"]))
        if group is None:
            when, id_ = time_of(row["when"]), row["task_id"]
            found[exception, row["name"]] = FailureGroup(exception, row["name"], 1, when, when, id_, error)
        else:
            group.count += 1
            group.first = time_of(row["when"])
