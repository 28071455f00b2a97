"""What a task was called with, as far as it can be sent again; and how it is sent."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery import states
from kombu.exceptions import KombuError

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import shown
from celery_sql_results.payload import NotReadable, Readable
from celery_sql_results.payload.redaction import REDACTED
from celery_sql_results.rows import Row

from .desk import Desk, Ending

__all__ = ["Call", "Refused", "broker", "call_of", "known_tasks"]

#: Seconds in which the broker must answer.
BROKER_TIMEOUT = 5.0


class Refused(Exception):
    """A task cannot be sent again; the message says why."""


@dataclass(frozen=True)
class Call:
    """A task with its arguments, and what the app knows of it, if it does."""

    row: Row
    args: list[Any]
    kwargs: dict[str, Any]
    task: Any = None

    def send(self, app: Any, task_id: str, queue: str | None, countdown: float | None) -> None:
        """Send it, in one message: nothing is published again of which it is not clear whether it was sent.

        Raises:
            kombu.exceptions.EncodeError, SerializerNotInstalled: the arguments cannot be written. Nothing was sent.
            Exception: whatever the transport raises. Perhaps it was sent.
        """
        row = self.row
        is_new = task_id != row["task_id"]
        known = {
            "root_id": row["root_id"],
            "parent_id": row["task_id"] if is_new else row["parent_id"],
            "group_id": None if is_new else row["group_id"],
            "countdown": countdown,
        }
        given = {name: value for name, value in known.items() if value is not None}
        to = {"queue": queue, "exchange": None, "routing_key": None} if queue else _queue(app, row["queue"])
        options = {"task_id": task_id, "retry": False, **to, **given}
        if self.task is None:
            app.send_task(row["name"], self.args, self.kwargs, **options)
        else:
            self.task.apply_async(self.args, self.kwargs, **options)


def known_tasks(desk: Desk) -> Mapping[str, Any]:
    """The tasks of the app, by their names: their priorities, limits and the like are in no row."""
    if desk.app.conf.task_always_eager:  # they would run here
        return {}
    with caught() as failure:  # the modules of a project may raise anything
        desk.app.loader.import_default_modules()
    if failure.error is not None:
        why = shown(f"{type(failure.error).__name__}: {failure.error}")
        desk.out.note(f"not all modules of the app can be imported ({why}): their tasks are sent without options")
    return desk.app.tasks  # type: ignore[no-any-return] # Celery has no types


def _queue(app: Any, stored: str | None) -> dict[str, str]:
    """Where a task came from: a row has the routing key, which is the name of the queue unless somebody set others."""
    if not stored:
        return {}
    queues = app.amqp.queues
    of_key = [name for name, queue in dict(queues).items() if queue.routing_key == stored]
    return {"queue": of_key[0] if stored not in queues and len(of_key) == 1 else stored}


def call_of(row: Row, read: Readable, tasks: Mapping[str, Any]) -> Call:
    """The call of a task, with the arguments that are stored.

    Args:
        row: of the task.
        read: reads payloads.
        tasks: that the app knows.

    Raises:
        Refused: they are not, or not all of them, or not as they were.
    """
    if not row["name"]:
        raise Refused("its name is not stored")
    if row["args"] is None and row["kwargs"] is None:
        raise Refused("its arguments are not stored (result_extended was off)")
    if row["status"] == states.FAILURE and row["worker"] is None:
        raise Refused("it has not run: a task before it failed, so its arguments are not whole")
    args = [] if row["args"] is None else _value(row, "args", read)
    kwargs = {} if row["kwargs"] is None else _value(row, "kwargs", read)
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        raise Refused("its arguments are stored as a text, not as they were (argsrepr, or what could not be written)")
    if _is_redacted([args, kwargs]):
        raise Refused("some of its arguments are redacted (database_redact)")
    if not all(isinstance(name, str) for name in kwargs):
        raise Refused("the names of its arguments cannot be read")
    return _fitting(Call(row, list(args), kwargs, tasks.get(row["name"])))


def _fitting(call: Call) -> Call:
    """A call, if the task takes such arguments. Celery looks as well, but when the task was claimed."""
    if call.task is not None and call.task.typing:
        with caught() as misfit:  # not every callable tells what it takes
            inspect.signature(call.task.run).bind(*call.args, **call.kwargs)
        if isinstance(misfit.error, TypeError):
            raise Refused(f"the task does not take its arguments any more: {shown(misfit.error)}")
    return call


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
