"""Which tasks learn that a body has failed: all those whose results are its result; and what that takes of a body."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from celery import canvas
from celery.app.task import Context
from kombu.utils.json import dumps

__all__ = ["as_json", "bare", "ends_of", "ends_only", "request_of"]


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
    return Context(
        id=task.id, task=task.task, group=task.options.get("group_id"), errbacks=errbacks, delivery_info={}, **known
    )


def as_json(value: Any) -> bytes | None:
    """The JSON of a signature, or of a part of one; ``None`` if only pickle could write it."""
    try:
        return dumps(value).encode()  # type: ignore[no-any-return]
    except (TypeError, ValueError):
        return None


def bare(body: Any) -> dict[str, Any]:
    """What is needed to let a body fail: the tasks that it is made of with what JSON can write of their options."""
    return _reduced(body, lambda _name, value: as_json(value) is not None)


def ends_only(body: Any) -> dict[str, Any]:
    """What lets a body fail and calls nobody: the ids of its tasks, and how they hang together."""
    return _reduced(body, lambda name, _value: name == "task_id")


#: Where signatures hold others.
_TASKS = ("tasks", "header", "body")


def _reduced(body: Any, keeps: Callable[[str, Any], bool]) -> dict[str, Any]:
    """A signature without arguments, with some of its options, and the ones in it likewise."""

    def each(tasks: Any) -> Any:
        return _reduced(tasks, keeps) if isinstance(tasks, dict) else [_reduced(task, keeps) for task in tasks]

    options = {name: value for name, value in body.get("options", {}).items() if keeps(name, value)}
    inner = {name: each(tasks) for name, tasks in body.get("kwargs", {}).items() if name in _TASKS}
    kept = {name: body.get(name) for name in ("task", "subtask_type", "immutable")}
    return {**kept, "args": [], "kwargs": inner if body.get("subtask_type") else {}, "options": options}
