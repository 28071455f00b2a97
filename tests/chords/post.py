"""A caller and a worker in one process, so that a test says which message arrives when, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.app.task import Context
from kombu.serialization import prepare_accept_content

from celery_sql_results import DatabaseBackend


@dataclass(frozen=True)
class Letter:
    """A message of a task, as it lay in the broker."""

    task: str
    id: str
    args: Any
    kwargs: Any
    request: Context


class Post:
    """An app, its broker in memory, and what a worker would do with the messages."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.backend: DatabaseBackend = app.backend

    def __getattr__(self, task: str) -> Any:
        """The signature of a task: `post.number(1)`."""
        return self.app.tasks[task].s

    def taken(self) -> list[Letter]:
        """Take all messages."""
        with self.app.connection_for_read() as connection:
            channel = connection.default_channel
            get = lambda: channel.basic_get(self.app.conf.task_default_queue, no_ack=True)  # noqa: E731
            return [letter_of(message, self.app.conf.accept_content) for message in iter(get, None)]

    def deliver(self, letter: Letter, value: Any) -> None:
        """Let a task return a value."""
        self.backend.mark_as_done(letter.id, value, request=letter.request)


def letter_of(message: Any, accept: list[str]) -> Letter:
    """What a worker makes of a message."""
    message.accept = prepare_accept_content(accept)
    (args, kwargs, embed), headers = message.decode(), message.headers
    known = {name: headers[name] for name in ("id", "task", "group", "group_index", "root_id", "parent_id")}
    return Letter(headers["task"], headers["id"], args, kwargs, Context({**known, **embed}))
