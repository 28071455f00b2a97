"""How many results there are, how long they took and waited, and whether that is more than before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from celery import states

from celery_sql_results.rows.tasks import Row

from .asking import Asked
from .results import Filter, Results

__all__ = ["BY", "Figures", "Spread", "Stats", "Summed"]

#: What results may be counted by.
BY = ("task", "state", "worker", "queue", "hour")
#: Seconds at which one class of times ends and the next begins: three in each power of ten.
BOUNDS = tuple(base * 10.0**power for power in range(-3, 6) for base in (1, 2, 5))
#: Lines of counts that are read; a line is one name, one class of run times and one of waiting times.
MOST = 100_000


class Spread:
    """How times are spread, by how many are in each class between two of :data:`BOUNDS`, and which end these."""

    def __init__(self) -> None:
        self._classes: dict[int, tuple[int, float, float]] = {}

    def add(self, number: int | None, count: int, shortest: float | None, longest: float | None) -> None:
        """So many times more of one class, and the shortest and the longest of these."""
        if number is not None and shortest is not None and longest is not None:
            before, low, high = self._classes.get(number, (0, float(shortest), float(longest)))
            self._classes[number] = before + count, min(low, float(shortest)), max(high, float(longest))

    @property
    def longest(self) -> float | None:
        """The longest of all, if there are any."""
        return max((high for _, _, high in self._classes.values()), default=None)

    def percentile(self, share: float) -> float | None:
        """About the seconds that such a share of the times is not longer than; ``None`` if there are none."""
        wanted, before = share * sum(count for count, _, _ in self._classes.values()), 0
        for _, (count, low, high) in sorted(self._classes.items()):
            if before + count >= wanted:
                return min(low + (high - low) * (wanted - before) / count, high)
            before += count
        return None


@dataclass
class Figures:
    """What there is of one name.

    Attributes:
        count: results that were done in the period, ``failures`` of them failed; ``before`` that, in a period as long,
            there were so many, and ``failures_before``.
        total: seconds that they ran in all, if known.
        open: how many have begun or were sent, and are not done, now.
    """

    name: str | None
    count: int = 0
    failures: int = 0
    before: int = 0
    failures_before: int = 0
    open: int = 0
    total: float | None = None
    ran: Spread = field(default_factory=Spread)
    waited: Spread = field(default_factory=Spread)


class Summed(NamedTuple):
    """Figures by name, and whether these are all."""

    figures: list[Figures]
    is_all: bool


class Stats:
    """The figures, as people ask for them. Times are counted in classes, so no database needs to know percentiles.

    Args:
        asked: the database.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked, self._task = asked, asked.models.task
        self._results = Results(asked)

    def of(self, which: Filter, by: str, since: datetime, until: datetime) -> Summed:
        """The figures of the results that a filter means, done between two times.

        Raises:
            TooLong: the database did not answer in time.
        """
        found: dict[str | None, Figures] = {}
        done, key = self._task.c.date_done, self._key(by)
        now = self._asked.all(self._spread(replace(which, since=since, until=until), key))
        for row in now:
            _add(found, row)
        earlier = replace(which, since=since - (until - since), until=since)
        before = [] if by == "hour" else self._asked.all(self._counted(earlier, key, done, done.is_not(None)))
        for row in before:
            figures = found.setdefault(row["name"], Figures(row["name"]))
            figures.before, figures.failures_before = int(row["count"]), int(row["failures"] or 0)
        ever = replace(which, since=None, until=None)
        open_ = [] if by == "hour" else self._asked.all(self._counted(ever, key, self._begun, done.is_(None)))
        for row in open_:
            found.setdefault(row["name"], Figures(row["name"])).open = int(row["count"])
        return Summed(list(found.values()), max(map(len, (now, before, open_))) < MOST)

    # -- statements ----------------------------------------------------------------------------------------------

    def _key(self, by: str) -> sa.ColumnElement[Any]:
        if by == "hour":
            return self._asked.impl.reads.hour(self._task.c.date_done)
        return self._asked.column(self._task, {"task": "name", "state": "status"}.get(by, by))

    @property
    def _begun(self) -> sa.ColumnElement[Any]:
        return sa.func.coalesce(
            self._asked.column(self._task, "date_started"), self._asked.column(self._task, "date_queued")
        )

    @property
    def _failed(self) -> sa.ColumnElement[int]:
        one, none = sa.literal_column("1", sa.Integer), sa.literal_column("0", sa.Integer)
        failure = sa.literal(states.FAILURE, sa.String, literal_execute=True)
        return sa.case((self._task.c.status == failure, one), else_=none)

    def _spread(self, which: Filter, key: sa.ColumnElement[Any]) -> sa.Select[Any]:
        """Counts by name and classes of times. A subquery, so that each is computed, and written, once."""
        task, seconds = self._task.c, self._asked.impl.reads.seconds
        began, sent = self._asked.column(self._task, "date_started"), self._asked.column(self._task, "date_queued")
        each = sa.select(
            key.label("name"),
            self._failed.label("failed"),
            seconds(task.date_done, began).label("ran"),
            seconds(began, sent).label("waited"),
        ).where(task.date_done.is_not(None), *self._results.conditions(which, task.date_done))
        times = each.subquery("times").c
        classes = sa.select(
            times.name, times.failed, times.ran, times.waited,
            _class(times.ran).label("ran_class"), _class(times.waited).label("waited_class"),
        ).subquery("classes").c  # fmt: skip
        call, keys = self._asked.impl.reads.function, (classes.name, classes.ran_class, classes.waited_class)
        return (
            sa.select(
                *keys,
                call("count")(sa.literal_column("1"), type_=sa.BigInteger).label("count"),
                call("sum")(classes.failed, type_=sa.BigInteger).label("failures"),
                call("sum")(classes.ran, type_=sa.Float).label("total"),
                *(
                    call(end)(column, type_=sa.Float).label(f"{end}_{name}")
                    for name, column in (("ran", classes.ran), ("waited", classes.waited))
                    for end in ("min", "max")
                ),
            )
            .group_by(*keys)
            .limit(MOST)
        )

    def _counted(
        self, which: Filter, key: sa.ColumnElement[Any], when: Any, only: sa.ColumnElement[bool]
    ) -> sa.Select[Any]:
        """How many results there are by name."""
        each = sa.select(key.label("name"), self._failed.label("failed"))
        found = each.where(only, *self._results.conditions(which, when)).subquery("each_").c
        call = self._asked.impl.reads.function
        count = call("count")(sa.literal_column("1"), type_=sa.BigInteger).label("count")
        failures = call("sum")(found.failed, type_=sa.BigInteger).label("failures")
        return sa.select(found.name, count, failures).group_by(found.name).limit(MOST)


def _class(seconds: sa.ColumnElement[float]) -> sa.ColumnElement[int]:
    """In which class a time is; ``NULL`` if it is not known."""
    number: Callable[[int], sa.ColumnElement[int]] = lambda each: sa.literal_column(f"{each}", sa.Integer)  # noqa: E731
    whens = [(seconds < sa.literal_column(f"{bound:.3f}", sa.Float), number(each)) for each, bound in enumerate(BOUNDS)]
    last = (seconds.is_not(None), number(len(BOUNDS)))
    return sa.case(*whens, last)


def _add(found: dict[str | None, Figures], row: Row) -> None:
    figures, count = found.setdefault(row["name"], Figures(row["name"])), int(row["count"])
    figures.count += count
    figures.failures += int(row["failures"] or 0)
    if row["total"] is not None:
        figures.total = (figures.total or 0.0) + float(row["total"])
    figures.ran.add(row["ran_class"], count, row["min_ran"], row["max_ran"])
    figures.waited.add(row["waited_class"], count, row["min_waited"], row["max_waited"])
