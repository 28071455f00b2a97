"""``show``: all that is known of a result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click
from celery import states

from celery_sql_results.cli.desk import DONE, NOT_READY, UNWELL, Desk, verb
from celery_sql_results.cli.filters import as_row
from celery_sql_results.cli.ids import whole_id
from celery_sql_results.cli.output import Column
from celery_sql_results.payload import NotReadable, Readable, sent
from celery_sql_results.rows.queries import Results

__all__ = ["command"]

FIELDS = (
    *(Column("task_id", "id"), Column("state", "state"), Column("name", "task"), Column("worker", "worker")),
    *(Column("queue", "queue"), Column("retries", "retries"), Column("queued", "sent", form="time")),
    *(Column("started", "began", form="time"), Column("ended", "ended", form="time")),
    *(Column("waited", "waited", form="seconds"), Column("runtime", "ran", form="seconds")),
    *(Column("parent_id", "sent by"), Column("root_id", "workflow"), Column("group_id", "group")),
)
#: What a payload is called.
PAYLOADS = {"args": "args", "kwargs": "kwargs", "stamps": "stamps", "children": "has sent", "result": "result"}
#: Bytes of a payload that are read, and characters that are shown, unless all are wanted.
READ, SHOWN = 200_000, 2_000


@verb("show")
@click.argument("task_id", metavar="ID")
@click.option("--full", is_flag=True, help="Show values and tracebacks whole, however long they are.")
def command(desk: Desk, task_id: str, full: bool) -> int:
    """All that is known of the result of a task, whose ID may be shortened.

    Values are shown as text or JSON, and cut where they are long. Pickles are not read, unless they hold plain data.

    Exit code: 0, 1 if the task failed or was revoked, 3 if it is not ready, 4 if there is no such result.
    """
    row = Results(desk.asked).one(whole_id(desk, task_id), None if full else READ)
    if row is None:  # deleted just now
        return 4
    shown = as_row({**row, "failure": row["traceback"], "kind": row["result"]})
    read = Readable(desk.backend.settings.serializer)
    values = {name: read(row, name) for name in PAYLOADS if row[name] is not None}
    children = values.get("children")
    if children is not None and not isinstance(children, NotReadable):
        values["children"] = [each.task_id for each in sent(children)]
    if desk.out.form == "json":
        desk.out.json({**shown, **dict.fromkeys(PAYLOADS), **values, "traceback": row["traceback"]})
    else:
        _print(desk, row, shown, values, full)
    return _code(row["status"])


def _print(desk: Desk, row: Mapping[str, Any], shown: Mapping[str, Any], values: Mapping[str, Any], full: bool) -> None:
    desk.out.fields(shown, FIELDS)
    for name, value in values.items():
        text = value if isinstance(value, NotReadable) else json.dumps(value, default=repr, indent=1 if full else None)
        desk.out.block(PAYLOADS[name], _cut(text, full))
    if row["traceback"]:
        desk.out.block("traceback", _cut(row["traceback"], full, from_end=True))


def _cut(text: str, full: bool, from_end: bool = False) -> str:
    if full or len(text) <= SHOWN:
        return text
    kept = f"… {text[-SHOWN:]}" if from_end else f"{text[:SHOWN]} …"
    return f"{kept}\n({len(text)} characters in all: --full shows them)"


def _code(state: str) -> int:
    if state in states.READY_STATES:
        return DONE if state == states.SUCCESS else UNWELL
    return NOT_READY
