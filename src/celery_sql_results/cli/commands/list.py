"""``list``: results, newest first."""

from __future__ import annotations

from celery_sql_results.cli.desk import Desk, verb
from celery_sql_results.cli.filters import COLUMNS, as_row, filters, nothing
from celery_sql_results.cli.pages import limited, pages
from celery_sql_results.rows.queries import Filter

__all__ = ["command"]


@verb("list", is_list=True)
@limited("How many, at most.")
@filters
def command(desk: Desk, which: Filter, limit: int) -> None:
    """Results, newest first: when they ended, began or were sent.

    What failed is shown with the last line of its traceback. In a pattern, * stands for any text, ? for any character.
    """
    found = desk.out.rows(COLUMNS, map(as_row, pages(desk.asked, which, limit)))
    if not found:
        desk.out.note(nothing(which))
