"""Rows as workers leave them behind, written straight into the table: at known times, and whatever is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from celery_sql_results import DatabaseBackend

#: When the newest result was done, in UTC.
NOON = datetime(2026, 3, 1, 12)
#: What is known of each result, unless a test says otherwise.
USUAL: Mapping[str, Any] = {
    "status": "SUCCESS",
    "result": b"3",
    "name": "shop.add",
    "worker": "celery@shop-1",
    "queue": "orders",
    "retries": 0,
    "content_type": "application/json",
}


def row(task_id: str, done: float | None = 0, ran: float = 1.0, **more: Any) -> dict[str, Any]:
    """A row that was done so many minutes before noon, or is not done, and ran so many seconds."""
    end = NOON - timedelta(minutes=done or 0)
    began = end - timedelta(seconds=ran)
    times = {"date_queued": began - timedelta(seconds=1), "date_started": began}
    return {"task_id": task_id, **USUAL, **times, "date_done": None if done is None else end, **more}


def failure(task_id: str, error: str = "ValueError: no such order", **more: Any) -> dict[str, Any]:
    """A row of a task that has failed with an error, as the last line of a traceback has it."""
    kind, _, message = error.partition(": ")
    result = {"exc_type": kind, "exc_message": [message], "exc_module": "builtins"}
    trace = f'Traceback (most recent call last):\n  File "shop.py", line 7, in pay\n    pay()\n{error}\n'
    return row(task_id, **{"status": "FAILURE", "result": json.dumps(result).encode(), "traceback": trace, **more})


def put(backend: DatabaseBackend, *rows: Mapping[str, Any]) -> None:
    """Write rows into the table of a backend, which is made if need be."""
    models, engine = backend.models, backend.database.engine
    backend.session_manager.prepare_models(engine, models)
    columns = [column.name for column in models.task.columns if column.name != "id"]
    with engine.connect() as connection:
        for each in rows:
            connection.execute(models.task.insert().values({name: each.get(name) for name in columns}))
        connection.commit()


#: One result or more in each state, the newest first.
SOME = (
    row("11111111-aaaa", done=1, root_id="root-1", group_id="group-1"),
    row(
        "11112222-bbbb",
        done=2,
        name="shop.pay",
        worker="celery@shop-2",
        queue="payments",
        parent_id="11111111-aaaa",
        root_id="root-1",
    ),
    failure("22222222-cccc", done=3, name="shop.pay", root_id="root-1"),
    failure("33333333-dddd", "shop.HttpError: 503", done=4, name="mail.send", queue="mail", retries=3),
    row("44444444-eeee", done=60, ran=90),
    row("55555555-ffff", done=60 * 24, status="REVOKED", result=b"null", worker=None),
    row("66666666-gggg", done=None, status="STARTED", result=None),
    row("77777777-hhhh", done=None, ran=5, status="RETRY", result=None, retries=1),
)
