"""``stats``: how many results, how long they took, and whether that is more than before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import click

from celery_sql_results.boundaries import caught
from celery_sql_results.cli.desk import Desk, verb
from celery_sql_results.cli.filters import filters, recent
from celery_sql_results.cli.output import Column
from celery_sql_results.cli.pages import limited
from celery_sql_results.models import utc_now
from celery_sql_results.rows.queries import BY, Figures, Filter, Stats

__all__ = ["command"]

COLUMNS = (
    *(Column("count", "results", form="number"), Column("per_minute", "a minute", form="number")),
    *(Column("per_minute_before", "before", form="number"), Column("failures", "failed", form="number")),
    *(Column("failed_percent", "%", form="number"), Column("failures_before", "before", 100, form="number")),
    *(Column("open", "open", form="number"), Column("ran_p50", "ran p50", form="seconds")),
    *(Column("ran_p95", "p95", form="seconds"), Column("ran_max", "max", 100, "seconds")),
    *(Column("ran_total", "total", form="seconds"), Column("waited_p50", "waited p50", 120, "seconds")),
    Column("waited_p95", "p95", 120, "seconds"),
)

#: What lines may be sorted by, the largest first.
SORTS: Mapping[str, Callable[[Figures], float]] = {
    "results": lambda figures: figures.count,
    "failed": lambda figures: figures.failures,
    "p95": lambda figures: figures.ran.percentile(0.95) or 0.0,
    "total": lambda figures: figures.total or 0.0,
}


@verb("stats", is_list=True)
@click.option("--by", type=click.Choice(BY), default="task", show_default=True, help="What results are counted by.")
@click.option("--sort", type=click.Choice([*SORTS]), help="What comes first; results if not said, of hours the first.")
@click.option("--sizes", is_flag=True, help="How large the tables and indexes are instead.")
@limited("How many lines, at most.")
@filters
def command(desk: Desk, which: Filter, by: str, sort: str | None, sizes: bool, limit: int) -> None:
    """How many results the last 24 hours have brought, and how long they ran and waited in their queues.

    The period is from --since to --until; "before" is the period before, which is as long. "open" are those that have
    begun or were sent, and are not done now. "p50" is about the time that half of the results do not exceed, "p95" that
    of 95 in 100: they are reckoned from counts by classes of times.
    """
    if sizes:
        _sizes(desk)
        return
    which = recent(which)
    since, until = which.since or utc_now(), which.until or utc_now()
    found = Stats(desk.asked).of(which, by, since, until)
    figures = sorted(found.figures, key=lambda each: each.name or "")
    if sort or by != "hour":
        figures.sort(key=SORTS[sort or "results"], reverse=True)
    rows = [_row(each, by, _minutes(by, since, until)) for each in figures[:limit]]
    if not desk.out.rows((Column(by, by, form="time" if by == "hour" else "text"), *COLUMNS), rows):
        desk.out.note("no such results")
    if figures[limit:]:
        desk.out.note(f"{len(figures) - limit:,} lines more: --limit shows them")
    if not found.is_all:
        desk.out.note("there are too many names: not all were counted (--task, --worker, --queue)")
    if any(each.count for each in figures) and all(each.total is None for each in figures):
        desk.out.note("how long they took is not known: it was not recorded, or this database does not compute it")


def _minutes(by: str, since: datetime, until: datetime) -> float:
    return 60.0 if by == "hour" else max((until - since).total_seconds() / 60, 1e-9)


def _hour(name: str | None) -> datetime | None:
    """An hour of the database, in UTC, as a time: so it is shown as all times are."""
    with caught(ValueError):  # MySQL has dates that are none
        return None if name is None else datetime.strptime(name, "%Y-%m-%d %H")  # noqa: DTZ007 - as rows have it
    return None


def _row(figures: Figures, by: str, minutes: float) -> dict[str, Any]:
    ran, waited, before = figures.ran, figures.waited, by != "hour"
    return {
        by: _hour(figures.name) if by == "hour" else figures.name,
        "count": figures.count,
        "per_minute": round(figures.count / minutes, 2),
        "per_minute_before": round(figures.before / minutes, 2) if before else None,
        "failures": figures.failures,
        "failed_percent": round(100 * figures.failures / figures.count, 1) if figures.count else None,
        "failures_before": figures.failures_before if before else None,
        "open": figures.open if before else None,
        "ran_p50": ran.percentile(0.5),
        "ran_p95": ran.percentile(0.95),
        "ran_max": ran.longest,
        "ran_total": figures.total,
        "waited_p50": waited.percentile(0.5),
        "waited_p95": waited.percentile(0.95),
    }


SIZES = (
    *(Column("table", "table"), Column("rows", "about rows", form="number"), Column("dead", "dead", form="number")),
    *(Column("bytes", "bytes", form="number"), Column("index_bytes", "of indexes", form="number")),
)


def _sizes(desk: Desk) -> None:
    found = desk.asked.sizes()
    desk.out.rows(SIZES, found)
    if not found:
        desk.out.note("this database does not tell sizes")
