"""The rows of those who wait for a task, where the database can notify them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from celery import states

from celery_sql_results._compat import memoized_property
from celery_sql_results.dialects import as_dicts

from .tasks import Row, TaskRows

__all__ = ["WaiterRows"]


class WaiterRows:
    """The waiters for the tasks of one backend."""

    def __init__(self, tasks: TaskRows) -> None:
        self._tasks = tasks
        self._table = tasks.models.waiters
        self._impl = tasks.impl
        self._engine = tasks.engine

    def await_many(self, task_ids: Collection[str], channel: str) -> list[Row]:
        """The rows that tasks have; writers of those that are not finished will notify ``channel``."""
        values: dict[str, Any] = {"channel": channel}
        if len(task_ids) == 1:
            statement, values["id_"] = self._leave_row, next(iter(task_ids))
        else:
            statement, values["ids_"] = self._leave_rows, list(task_ids)
        with self._impl.connect_quickly(self._engine) as connection:
            return as_dicts(connection.execute(statement, values))

    def await_no_more(self, task_ids: Collection[str], channel: str) -> None:
        """Take :meth:`await_many` back."""
        with self._impl.connect(self._engine) as connection:
            connection.execute(self._withdraw, {"ids_": list(task_ids), "channel_": channel})

    def notify(self, channel: str, message: str) -> None:
        """Send a notification."""
        with self._impl.connect_quickly(self._engine) as connection:
            connection.execute(self._impl.notify(), {"channel_": channel, "message_": message})

    # -- statements ----------------------------------------------------------------------------------------------

    @memoized_property
    def _leave_row(self) -> sa.Select[Any]:
        return self._impl.leave_row(self._tasks.select_one, self._table, states.READY_STATES)

    @memoized_property
    def _leave_rows(self) -> sa.Select[Any]:
        return self._impl.leave_rows(self._tasks.select_many, self._table, states.READY_STATES)

    @memoized_property
    def _withdraw(self) -> sa.Delete:
        return self._impl.withdraw(self._table)
