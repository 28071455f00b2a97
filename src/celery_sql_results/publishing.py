"""The header that says when a task was sent: what publishing adds, and what becomes of it if the task is replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from celery import current_task
from celery.signals import before_task_publish

from .ids import as_text
from .payload import SENT, of_sending

__all__ = ["keep_for", "will_send"]


class _Next(threading.local):
    """The task that this thread is about to send: the signal does not say whose app that is."""

    task_id: object = None


_next = _Next()


def will_send(task_id: object) -> None:
    """The next message of this thread, if it is of that task, says when it was sent."""
    _next.task_id = task_id


def keep_for(ends: Iterable[Any]) -> None:
    """Let those of some signatures that stand for the task that runs, and is replaced, say when that was sent."""
    running, header = _replaced()
    for task in ends if header else ():
        options = task["options"]
        if options.get("task_id") == running:
            options["headers"] = {**(options.get("headers") or {}), SENT: header}


def _replaced() -> tuple[str | None, str | None]:
    """The id of the task that runs in this thread, and its header."""
    request = current_task.request if current_task else None
    header = getattr(request, SENT, None) or (getattr(request, "headers", None) or {}).get(SENT)
    return getattr(request, "id", None), header


def _add(headers: dict[str, Any] | None = None, body: Any = None, **_: Any) -> None:
    """Say in a message when its task was first sent: a retry, and what replaces a task, has its id."""
    task_id, _next.task_id = _next.task_id, None
    if headers is None or task_id is None:
        return
    told: Mapping[str, Any] = body if isinstance(body, dict) else headers  # as in the first protocol
    if told.get("id") != task_id:
        return
    given = headers.get(SENT)
    if isinstance(given, str) and given.endswith(f" {as_text(task_id)}"):
        return
    running, header = _replaced() if told.get("replaced_task_nesting") else (None, None)
    headers[SENT] = header if header and running == task_id else of_sending(as_text(task_id))
    if header and isinstance(body, tuple):
        keep_for(body[2].get("chain") or ())


before_task_publish.connect(_add)
