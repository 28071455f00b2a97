"""Which tasks learn that a body has failed: all those whose results are its result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import canvas
from celery.app.task import Context

__all__ = ["ends_of", "request_of"]


def ends_of(body: Any) -> Iterator[Any]:
    """The tasks whose results are the result of a signature."""
    if isinstance(body, canvas.group):
        for task in body.tasks:
            yield from ends_of(task)
    elif isinstance(body, (canvas._chain, canvas._chord)):
        yield from ends_of(body.tasks[-1] if isinstance(body, canvas._chain) else body.body)
    else:
        yield body


def request_of(task: Any) -> Context:
    """What a worker would know of a task that was not sent."""
    known = {name: task.options.get(name) for name in ("chord", "group_index")}
    errbacks = task.options.get("link_error") or []
    return Context(id=task.id, group=task.options.get("group_id"), errbacks=errbacks, delivery_info={}, **known)
