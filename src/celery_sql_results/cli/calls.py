"""What a task was called with, as far as it can be sent again; and how it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kombu.exceptions import KombuError

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import shown
from celery_sql_results.payload import NotReadable, Readable
from celery_sql_results.payload.redaction import REDACTED
from celery_sql_results.rows import Row

from .desk import Desk, Ending

__all__ = ["Call", "Refused", "broker", "call_of"]

#: Seconds in which the broker must answer.
BROKER_TIMEOUT = 5.0


class Refused(Exception):
    """A task cannot be sent again; the message says why."""


@dataclass(frozen=True)
class Call:
    """A task with its arguments."""

    row: Row
    args: list[Any]
    kwargs: dict[str, Any]

    def send(self, app: Any, task_id: str, queue: str | None, countdown: float | None) -> None:
        """Send it.

        Raises:
            kombu.exceptions.OperationalError: the broker cannot be reached.
            kombu.exceptions.EncodeError: the arguments cannot be written.
        """
        row = self.row
        is_new = task_id != row["task_id"]
        known = {"root_id": row["root_id"], "parent_id": row["task_id"] if is_new else row["parent_id"]}
        given = {name: value for name, value in (*known.items(), ("countdown", countdown)) if value is not None}
        to = {"queue": queue} if queue else _queue(app, row["queue"])
        app.send_task(row["name"], self.args, self.kwargs, task_id=task_id, **to, **given)


def _queue(app: Any, stored: str | None) -> dict[str, str]:
    """Where a task came from: a row has the routing key, which is the name of the queue unless somebody set others."""
    if not stored:
        return {}
    queues = app.amqp.queues
    of_key = [name for name, queue in dict(queues).items() if queue.routing_key == stored]
    return {"queue": of_key[0] if stored not in queues and len(of_key) == 1 else stored}


def call_of(row: Row, read: Readable) -> Call:
    """The call of a task, with the arguments that are stored.

    Raises:
        Refused: they are not, or not all of them, or not as they were.
    """
    if not row["name"]:
        raise Refused("its name is not stored")
    if row["args"] is None and row["kwargs"] is None:
        raise Refused("its arguments are not stored (result_extended was off)")
    args = [] if row["args"] is None else _value(row, "args", read)
    kwargs = {} if row["kwargs"] is None else _value(row, "kwargs", read)
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        raise Refused("its arguments are stored as a text, not as they were (argsrepr, or what could not be written)")
    if _is_redacted([args, kwargs]):
        raise Refused("some of its arguments are redacted (database_redact)")
    if not all(isinstance(name, str) for name in kwargs):
        raise Refused("the names of its arguments cannot be read")
    return Call(row, list(args), kwargs)


def _value(row: Row, name: str, read: Readable) -> Any:
    value = read(row, name)
    if isinstance(value, NotReadable):
        raise Refused(f"its arguments cannot be read: {shown(value)}")
    return value


def _is_redacted(value: Any) -> bool:
    left = [value]
    for each in left:
        if isinstance(each, str) and each == REDACTED:
            return True
        if isinstance(each, Mapping):
            left += [*each.keys(), *each.values()]
        elif isinstance(each, (list, tuple, set, frozenset)):
            left += each
    return False


def broker(desk: Desk) -> None:
    """See to it that there is a broker, before anything is done.

    Raises:
        Ending: none is set, or it does not answer.
    """
    if not desk.app.conf.broker_url:
        raise Ending("which broker? Set broker_url, or give --broker-url")
    connection = desk.app.connection_for_write(connect_timeout=BROKER_TIMEOUT)
    with caught() as failure:  # a transport may raise anything
        connection.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT)
        connection.release()
    if failure.error is not None:
        cause = failure.error.__cause__ if isinstance(failure.error, KombuError) else None
        why = shown(f"{type(cause or failure.error).__name__}: {cause or failure.error}")
        raise Ending(f"the broker {shown(connection.as_uri())} cannot be reached ({why}). Nothing was done")
