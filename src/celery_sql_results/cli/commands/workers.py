"""``workers``: which workers are alive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import click

from celery_sql_results.cli.desk import Desk, Ending, verb
from celery_sql_results.cli.filters import as_row, filters
from celery_sql_results.cli.output import Column
from celery_sql_results.cli.pages import limited
from celery_sql_results.models import utc_now
from celery_sql_results.rows import Row
from celery_sql_results.rows.queries import Filter, Workers

__all__ = ["command"]

COLUMNS = (
    *(Column("name", "worker"), Column("state", "state"), Column("seen", "seen", form="time")),
    *(Column("started", "since", 100, "time"), Column("busy", "busy", form="number")),
    *(Column("concurrency", "of", form="number"), Column("spooled", "in spool", form="number")),
    *(Column("host", "host", 120), Column("pid", "pid", 140), Column("app", "app", 160)),
    Column("versions", "versions", 140),
)
LOST = (
    *(Column("started", "began", form="time"), Column("state", "state"), Column("name", "task")),
    *(Column("worker", "worker"), Column("task_id", "id"), Column("why", "why", 100)),
)
#: How long ago workers that have no row may have stored a result, to be shown.
RECENT = timedelta(hours=1)
#: What is said of these.
WITHOUT = "no row"


@verb("workers", is_list=True)
@click.option("--lost", is_flag=True, help="Tasks that began on workers that are gone, and have not ended.")
@limited("How many lines, at most.")
@filters
def command(desk: Desk, which: Filter, lost: bool, limit: int) -> None:
    """Which workers are alive, and which ended, or are gone: nothing was heard of these for a minute.

    A worker of which there is "no row" has stored results in the last hour, but says nothing of itself: it is of an
    older release, has another backend, or no upkeep. The filters are for --lost.
    """
    workers = Workers(desk.asked)
    if lost and not workers.are_there:
        raise Ending(f"{desk.backend.database.name} has no table of workers that this role may read: run upgrade")
    if lost:
        found = desk.out.rows(LOST, map(_lost, workers.lost(which, limit)))
    else:
        found = desk.out.rows(COLUMNS, _rows(workers, limit))
    if not found:
        desk.out.note("no task is lost" if lost else "no workers")


def _rows(workers: Workers, limit: int) -> Iterator[dict[str, Any]]:
    for run in workers.runs(limit) if workers.are_there else ():
        times = {"started": run["date_started"], "seen": run["date_seen"], "ended": run["date_ended"]}
        names = ("name", "state", "busy", "concurrency", "spooled", "host", "pid", "app", "versions", "run_id")
        yield {**{name: run[name] for name in names}, **times}
    for row in workers.without_row(utc_now() - RECENT, limit):
        yield {"name": row["name"], "state": WITHOUT, "seen": row["last"]}


def _lost(row: Row) -> dict[str, Any]:
    suspect = row["suspect"]
    return {**as_row(row), "why": suspect.why, "worker_seen": suspect.seen}
