"""``failures``: what failed, grouped by exception and task."""

from __future__ import annotations

from celery import states

from celery_sql_results.cli.desk import Desk, Ending, verb
from celery_sql_results.cli.filters import filters, recent
from celery_sql_results.cli.output import Column
from celery_sql_results.cli.pages import limited
from celery_sql_results.payload import raised
from celery_sql_results.rows.queries import Failures, Filter

__all__ = ["command"]

COLUMNS = (
    *(Column("count", "count", form="number"), Column("exception", "exception"), Column("name", "task")),
    *(Column("first", "first", 120, "time"), Column("last", "last", form="time"), Column("task_id", "latest id")),
    Column("error", "its last line", 100),
)


@verb("failures", is_list=True)
@limited("How many groups, at most.")
@filters
def command(desk: Desk, which: Filter, limit: int) -> None:
    """What failed in the last 24 hours, grouped by exception and task, the most frequent first.

    The newest 10,000 failures are looked at; if there are more, that is told. --since says since when.
    """
    if states.SUCCESS in which.states:
        raise Ending("what has succeeded is no failure: --state is FAILURE if it is not given, or RETRY, REVOKED")
    found = Failures(desk.asked, raised).grouped(recent(which))
    desk.out.rows(COLUMNS, map(vars, found.groups[:limit]))
    if not found.groups:
        desk.out.note("no such failures")
    if not found.is_all:
        desk.out.note(f"only the newest {found.read:,} failures were looked at: there are more (--since, --until)")
    if found.groups[limit:]:
        desk.out.note(f"{len(found.groups) - limit:,} groups more: --limit shows them")
