"""What a task has sent, by the payload of its children: results in one another, as Celery's ``as_tuple`` makes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from celery_sql_results.ids import asked_id

__all__ = ["Sent", "sent"]

#: Results that are read of one payload. Whoever can write to the table can put anything there.
MOST = 10_000


class Sent(NamedTuple):
    """A task that was sent, and the group that it is in."""

    task_id: str
    group_id: str | None


def sent(children: Any) -> Iterator[Sent]:
    """The tasks that a decoded payload names, each after those that come before it in a chain; what is odd is left out.

    No call leads into another, so it does not matter how deep they are.
    """
    left: list[tuple[Any, str | None]] = [(each, None) for each in reversed(_list(children))]
    for _ in range(MOST):
        if not left:
            return
        value, group_id = left.pop()
        if isinstance(value, Sent):
            yield value
            continue
        head, members = _pair(value)
        name, before = _pair(head) if isinstance(head, (list, tuple)) else (head, None)
        id_ = asked_id(name) if isinstance(name, str) else None
        if id_ is not None and members is None:
            left.append((Sent(id_, group_id), None))
        left += [(each, id_) for each in reversed(_list(members))]
        if before:
            left.append((before, None))


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, (list, tuple)) and len(value) == 2 else (None, None)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
