"""``tail``: new results as they come."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from celery_sql_results.cli.desk import DONE, Desk, verb
from celery_sql_results.cli.filters import COLUMNS, as_row, filters
from celery_sql_results.cli.times import DURATION
from celery_sql_results.foreign import shown
from celery_sql_results.rows import Row
from celery_sql_results.rows.queries import Arrivals, Filter, TooLong
from celery_sql_results.writing import describe

__all__ = ["command"]

#: Characters of a column, so that lines that come one by one stand below each other.
WIDTHS = {"when": 20, "state": 8, "name": 30, "runtime": 9, "worker": 24, "task_id": 36}


@verb("tail")
@click.option("--interval", type=DURATION, default="1s", show_default=True, metavar="TIME", help="How often to look.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after so many results.")
@filters
def command(desk: Desk, which: Filter, interval: float, limit: int | None) -> int:
    """New results as they come, in the order of their ends, until Ctrl-C, which is exit code 0.

    With --since, first those that are there. A result that is stored more than ten seconds after its end, such as one
    that waited in a spool, may be missed. If the database goes away, that is told, and tail goes on when it is back.
    """
    try:
        for number, row in enumerate(_arriving(desk, which, interval), start=1):
            _print(desk, row)
            if number == limit:
                break
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # whoever reads has enough; nor can Python tell him anything at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _arriving(desk: Desk, which: Filter, interval: float) -> Iterator[Row]:
    """What is new, for ever. The first look must succeed."""
    arrivals, impl, is_away = Arrivals(desk.asked, which, which.since), desk.backend.database.impl, False
    yield from arrivals.look()
    while True:
        time.sleep(interval)
        try:
            yield from arrivals.look()
        except (DBAPIError, TooLong) as error:
            if isinstance(error, DBAPIError) and not impl.is_transient(error):
                raise
            if not is_away:
                desk.out.note(f"the database does not answer ({shown(describe(error))}): looking again until it does")
            is_away = True
        else:
            if is_away:
                desk.out.note("the database is back")
            is_away = False


def _print(desk: Desk, row: Row) -> None:
    found: dict[str, Any] = as_row(row)
    if desk.out.form == "json":
        desk.out.json(found)
        return
    columns = [column for column in COLUMNS if column.least <= desk.out.width]
    cells = [desk.out.cell(column, found.get(column.key)).ljust(WIDTHS.get(column.key, 0)) for column in columns]
    desk.out.line("  ".join(cells).rstrip())
