"""``wait``: until tasks are ready."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import click
from celery import states
from sqlalchemy.exc import DBAPIError

from celery_sql_results.cli.desk import DONE, TIMED_OUT, UNWELL, Desk, verb
from celery_sql_results.cli.output import plain
from celery_sql_results.cli.times import DURATION
from celery_sql_results.foreign import shown
from celery_sql_results.ids import stored_id
from celery_sql_results.payload import raised
from celery_sql_results.rows import Row
from celery_sql_results.rows.queries import Results, TooLong
from celery_sql_results.waiting import Subscription
from celery_sql_results.writing import describe

__all__ = ["command"]

#: Seconds after which the thread that waits looks at the time.
SLICE = 0.5
#: Bytes of a payload that say which exception it is.
HEAD = 200
#: Seconds that the database has for its first answer, however soon the time is over.
LEAST = 1.0


@verb("wait")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--timeout", type=DURATION, metavar="TIME", help="Wait no longer: 30s, 5m. Without it, for ever.")
@click.option("--any", "any_", is_flag=True, help="Until one has succeeded, or none can any more.")
def command(desk: Desk, ids: Sequence[str], timeout: float | None, any_: bool) -> int:
    """Wait until tasks are ready, and print each as it is. An ID that is not known is that of a task that is not ready.

    Exit code: 0 if all have succeeded (with --any: one has), 1 if not, 124 if the time is over before.
    """
    began, limit = time.monotonic(), math.inf if timeout is None else timeout
    desk.seconds = min(desk.seconds, max(limit, LEAST))
    try:
        return _waited(desk, ids, None if timeout is None else began + timeout, any_)
    except (DBAPIError, TooLong) as error:
        passes = isinstance(error, TooLong) or desk.backend.database.impl.is_transient(error)
        if not passes or time.monotonic() < began + max(limit, LEAST):  # one that is refused at once is an error
            raise
        desk.out.note(f"not ready in time: the database does not answer ({shown(describe(error))})")
        return TIMED_OUT


def _waited(desk: Desk, ids: Sequence[str], deadline: float | None, any_: bool) -> int:
    wanted, found = list(dict.fromkeys(_whole(desk, id_) for id_ in ids)), dict[str, str]()
    for row in _ready(desk, wanted, deadline):
        found[row["task_id"]] = row["status"]
        _print(desk, row)
        if any_ and row["status"] == states.SUCCESS:
            return DONE
    if len(found) < len(wanted):
        desk.out.note(f"not ready in time: {', '.join(id_ for id_ in wanted if id_ not in found)}")
        return TIMED_OUT
    return DONE if not any_ and set(found.values()) == {states.SUCCESS} else UNWELL


def _whole(desk: Desk, text: str) -> str:
    """The id that a text is, or is the beginning of, if that is known by now."""
    id_ = stored_id("task", text)
    found = Results(desk.asked).ids_like(id_, 2)
    return found[0] if len(found) == 1 else id_


def _ready(desk: Desk, ids: Collection[str], deadline: float | None) -> Iterator[Row]:
    """The rows of tasks as these are ready, up to a time. No value is read: that could import or raise anything."""
    desk.asked  # noqa: B018 - tells in one line that there are no tables
    looker = desk.backend.looker
    wait = Subscription(ids, states.READY_STATES, every_state=False)
    if deadline is not None and deadline <= time.monotonic():
        looker.look_once(wait)
        yield from wait.take(0)
        return
    try:
        looker.begin(wait)
        while wait.untaken:
            left = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
            yield from wait.take(max(left, 0.0))
            if left <= 0:
                return
    finally:
        looker.end(wait)


def _print(desk: Desk, row: Row) -> None:
    kind = bytes(row["result"] or b"")[:HEAD]
    exception, last = raised({**row, "failure": row["traceback"], "kind": kind})
    told: dict[str, Any] = {"task_id": row["task_id"], "state": row["status"]}
    told |= {"ended": row["date_done"], "exception": exception, "error": last or exception}
    if desk.out.form == "json":
        desk.out.json(told)
    else:
        desk.out.line("  ".join(plain(told[name]) for name in ("state", "task_id", "error") if told[name]))
