"""The options that say which results are meant, and what a row of a list shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

import click
from celery import states

from celery_sql_results.models import utc_now
from celery_sql_results.payload import raised
from celery_sql_results.rows.queries import Filter, time_of

from .output import Column
from .times import DURATION, TIME

__all__ = ["COLUMNS", "as_row", "as_state", "filters", "nothing", "recent"]

#: The states that Celery knows. Tasks may have others of their own.
STATES = states.ALL_STATES | {states.REJECTED, states.IGNORED}

COLUMNS = (
    Column("when", "when", form="time"),
    Column("state", "state"),
    Column("name", "task"),
    Column("runtime", "ran", 80, "seconds"),
    Column("worker", "worker", 140),
    Column("task_id", "id"),
    Column("error", "error", 100),
)


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that give a function a :class:`Filter`, as ``which``."""

    def chosen(*args: Any, **options: Any) -> Any:
        names = ("name", "worker", "queue", "since", "until", "root", "group", "parent", "longer", "exception")
        found = {name: options.pop(name) for name in names}
        if found["since"] and found["until"] and found["since"] >= found["until"]:
            raise click.UsageError("--since must be before --until")
        of_states = tuple(map(as_state, options.pop("state")))
        return function(*args, which=Filter(states=of_states, **found), **options)

    chosen.__doc__ = function.__doc__
    chosen.__click_params__ = [*getattr(function, "__click_params__", [])]  # type: ignore[attr-defined]
    for option in reversed(_OPTIONS):
        option(chosen)
    return chosen


_OPTIONS = (
    click.option("--state", multiple=True, metavar="STATE", help="In this state; may be given several times."),
    click.option("--task", "name", metavar="GLOB", help="Of tasks with such names: 'shop.*'."),
    click.option("--worker", metavar="GLOB", help="Run by such workers."),
    click.option("--queue", metavar="GLOB", help="From such queues."),
    click.option(
        "--since", type=TIME, metavar="TIME", help="Ended, or else began, since: 2h (ago), '2026-01-31 15:00'."
    ),
    click.option("--until", type=TIME, metavar="TIME", help="Ended, or else began, before: 1h (ago)."),
    click.option("--root", metavar="ID", help="Of the workflow that this task has begun."),
    click.option("--group", metavar="ID", help="Of this group."),
    click.option("--parent", metavar="ID", help="Sent by this task."),
    click.option("--min-runtime", "longer", type=DURATION, metavar="TIME", help="That ran so long at least: 5s, 2m."),
    click.option("--exception", metavar="GLOB", help="That failed with such an exception: 'Http*'."),
)


def as_state(text: str) -> str:
    """The state that somebody means: one of Celery's, however it is written, or else one of the user's own."""
    return text.upper() if text.upper() in STATES else text


def nothing(which: Filter) -> str:
    """What is said where no result was found: a state that Celery does not know may be misspelt."""
    odd = (state for state in which.states if state not in STATES)
    near = [(state, found) for state in odd for found in get_close_matches(state.upper(), STATES, 1)]
    return "no such results" + "".join(f": is {state} a state, or is it {found}?" for state, found in near[:1])


def recent(which: Filter) -> Filter:
    """The filter; of the last 24 hours, or of those before ``until``, unless it says since when."""
    if which.since is not None:
        return which
    return replace(which, since=(which.until or utc_now()) - timedelta(hours=24))


def as_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a list, by the names that people and programs see."""
    exception, last = raised(row)
    done, began, sent = (time_of(row[name]) for name in ("date_done", "date_started", "date_queued"))
    return {
        "task_id": row["task_id"],
        "state": row["status"],
        **{name: row[name] for name in ("name", "worker", "queue", "retries")},
        "queued": sent,
        "started": began,
        "ended": done,
        "when": done or began or sent,
        "waited": _between(sent, began),
        "runtime": _between(began, done),
        **{name: row[name] for name in ("parent_id", "root_id", "group_id")},
        "exception": exception,
        "error": last or exception,
    }


def _between(earlier: datetime | None, later: datetime | None) -> float | None:
    return (later - earlier).total_seconds() if earlier is not None and later is not None else None
