"""What is recorded of a task beside its outcome, from its request and from the header that says when it was sent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from celery_sql_results.ids import as_text
from celery_sql_results.models import utc_now

from .text import name

__all__ = ["SENT", "is_of", "of_sending", "recorded", "sent_at"]

#: The header of a message that says when its task was first sent, and which that is: what a task sends with the headers
#: that it came with is another.
SENT = "celery_sql_results_sent"
#: The largest number of retries that a column holds.
MOST = 2**31 - 1
#: Columns of texts, and what they are called in a request.
_TEXTS = (
    *(("name", "name"), ("name", "task"), ("worker", "hostname")),  # the first, of a task that no worker knows
    *(("parent_id", "parent_id"), ("root_id", "root_id"), ("group_id", "group")),
)


def of_sending(task_id: str) -> str:
    """The header :data:`SENT` of a task that is sent now: the time in UTC in ISO 8601, a blank, and the id."""
    return f"{utc_now().isoformat()} {task_id}"


def sent_at(header: object, task_id: object) -> datetime | None:
    """The time in UTC when a task was sent, as its header says; ``None`` if that is none, or of another task."""
    if not isinstance(header, str):
        return None
    time, _, of = header.partition(" ")
    if of != as_text(task_id):
        return None
    try:
        found = datetime.fromisoformat(time)
        return found if found.tzinfo is None else found.astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError):  # anybody may send anything
        return None


def is_of(request: Any, task_id: str) -> bool:
    """Whether a request is that of the task: one may store a state of another, as with ``update_state``.

    So may who runs no task at all: his request has no id.
    """
    of = getattr(request, "id", None) or getattr(request, "correlation_id", None)  # that of a task nobody knows
    return of is not None and (of == task_id or as_text(of) == task_id)


def recorded(request: Any, began: datetime | None) -> dict[str, Any]:
    """What is known of a task, by the columns for it; it is a part of each write, so it is quick.

    Args:
        request: of Celery, or of celery-batches, whose has nearly everything in a ``request_dict``.
        began: when it began, in UTC, if that is known.
    """
    known: Mapping[str, Any] = getattr(request, "__dict__", {})
    if "task" not in known:
        known = known.get("request_dict") or known
    row = _texts(known)
    delivery, retries, header = known.get("delivery_info"), known.get("retries"), _header(known)
    if isinstance(delivery, dict) and (queue := delivery.get("routing_key")) is not None:
        row["queue"] = name(queue)
    if type(retries) is int and 0 <= retries <= MOST:
        row["retries"] = retries
    if header is not None and (queued := sent_at(header, known.get("id"))) is not None:
        row["date_queued"] = queued
    if began is not None:
        row["date_started"] = began
    return row


def _texts(known: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column, attribute in _TEXTS:
        value = known.get(attribute)
        if value is not None:
            row[column] = name(value)
    if "parent_id" in row and known["parent_id"] == known.get("id"):  # as Celery says of a task that is tried again
        del row["parent_id"]
    return row


def _header(known: Mapping[str, Any]) -> Any:
    """That which says when; with Celery's first protocol, headers are kept apart."""
    found = known.get(SENT)
    if found is None and isinstance(headers := known.get("headers"), Mapping):
        return headers.get(SENT)
    return found
