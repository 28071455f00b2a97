"""The rows: put, fetch, fetch many, forget, and groups. One statement each, in one round trip where the database can.

The guard of a write lives here: SUCCESS is never overwritten, a finished state never by an unfinished one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from celery import states
from celery.utils.log import get_logger
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import memoized_property

from celery_sql_results.dialects import DefaultImpl, Put, as_dicts
from celery_sql_results.models import EXTENDED_COLUMNS, TASK_COLUMNS, Models, utc_now

__all__ = ["Store"]

logger = get_logger(__name__)
Row = Mapping[str, Any]

#: The states that a finished and an unfinished state may not replace.
_FINAL = (states.SUCCESS,)
_FINISHED = tuple(sorted(states.READY_STATES))


class Store:
    """The rows of one backend's tables.

    Args:
        engine: an engine as :class:`~celery_sql_results.session.SessionManager` makes it.
        impl: how its database is spoken to.
        models: the tables.
        columns: the columns that each table really has; others are neither written nor read.
        extended: whether to read the columns of ``result_extended``.
        notifies: whether a write looks for waiters, where the database can notify them.
    """

    def __init__(
        self,
        engine: Engine,
        impl: DefaultImpl,
        models: Models,
        columns: Mapping[sa.Table, frozenset[str]],
        extended: bool = False,
        notifies: bool = True,
    ) -> None:
        self.engine = engine
        self.impl = impl
        self.models = models
        self._columns = columns
        self._lacking = {table for table, names in columns.items() if names != frozenset(table.columns.keys())}
        self._waiters = models.waiters if notifies and self.has(models.waiters) else None
        self._names = (*TASK_COLUMNS, *EXTENDED_COLUMNS) if extended else TASK_COLUMNS

    def has(self, table: sa.Table) -> bool:
        """Whether the table is there."""
        return bool(self._columns.get(table))

    # -- tasks ---------------------------------------------------------------------------------------------------

    def put(self, row: Row, part: Row | None = None) -> None:
        """Store a task row, unless what is stored may not be replaced, and wake whoever waits for it.

        ``part`` is what the task leaves behind as a part of a chord; it is stored in the same commit.
        """
        where = self._put_finished if row["status"] in states.READY_STATES else self._put_unfinished
        row = self._that_are_there(where.table, row)
        with self.impl.connect_quickly(self.engine) as connection:
            if part is None:
                awaited = self.impl.put(connection, where, row)
            else:
                awaited = self.impl.put_both(connection, where, row, self.models.parts, part)
            if awaited:
                self._wake(connection, row)

    def fetch(self, task_id: str) -> Row | None:
        """The row of one task, or ``None``."""
        return self._fetch_one(self._select_task, task_id)

    def fetch_many(self, task_ids: Collection[str]) -> list[Row]:
        """The rows of those of ``task_ids`` that have one, in no order; one query for up to ``impl.max_parameters``."""
        if len(task_ids) == 1:  # planned once, where a list of any length is planned each time
            return [row for row in [self.fetch(*task_ids)] if row]
        batches = _batches(list(task_ids), self.impl.max_parameters)
        with self.impl.connect_quickly(self.engine) as connection:
            return [row for ids in batches for row in as_dicts(connection.execute(self._select_many, {"ids_": ids}))]

    def fetch_states(self, task_ids: Collection[str]) -> dict[str, str]:
        """The states of those of ``task_ids`` that have a row."""
        with self.impl.connect_quickly(self.engine) as connection:
            batches = _batches(list(task_ids), self.impl.max_parameters)
            return {id_: state for ids in batches for id_, state in connection.execute(self._states, {"ids_": ids})}

    def exists(self, task_id: str) -> bool:
        """Whether the task has a row, in whatever state."""
        statement = sa.select(sa.true()).where(self.models.task.c.task_id == str(task_id))
        with self.impl.connect(self.engine) as connection:
            return connection.execute(statement).first() is not None

    def forget(self, task_id: str) -> None:
        """Delete the row of one task, if there is one."""
        self._delete(self.models.task.c.task_id, task_id)

    # -- waiting -------------------------------------------------------------------------------------------------

    @property
    def notifies(self) -> bool:
        """Whether writers wake those who have left a row with :meth:`await_many`."""
        return self._waiters is not None

    def await_many(self, task_ids: Collection[str], channel: str) -> list[Row]:
        """Like :meth:`fetch_many`; writers of those that are not finished will notify ``channel``."""
        values: dict[str, Any] = {"channel": channel, "date_added": utc_now()}
        if len(task_ids) == 1:
            statement, values["id_"] = self._leave_row, next(iter(task_ids))
        else:
            statement, values["ids_"] = self._leave_rows, list(task_ids)
        with self.impl.connect_quickly(self.engine) as connection:
            return as_dicts(connection.execute(statement, values))

    def await_no_more(self, task_ids: Collection[str], channel: str) -> None:
        """Take :meth:`await_many` back."""
        with self.impl.connect(self.engine) as connection:
            connection.execute(self._withdraw, {"ids_": list(task_ids), "channel_": channel})

    def notify(self, channel: str, message: str) -> None:
        """Send a notification."""
        with self.impl.connect_quickly(self.engine) as connection:
            connection.execute(self.impl.notify(), {"channel_": channel, "message_": message})

    # -- groups --------------------------------------------------------------------------------------------------

    def put_group(self, row: Row) -> None:
        """Store a group row, in place of the one that is there."""
        where = Put(self.models.group, "taskset_id")
        with self.impl.connect_quickly(self.engine) as connection:
            self.impl.put(connection, where, self._that_are_there(where.table, row))

    def fetch_group(self, group_id: str) -> Row | None:
        """The row of one group, or ``None``."""
        return self._fetch_one(self._select_group, group_id)

    def forget_group(self, group_id: str) -> None:
        """Delete the row of one group, if there is one; its members stay."""
        self._delete(self.models.group.c.taskset_id, group_id)

    # -- statements ----------------------------------------------------------------------------------------------

    @memoized_property
    def _select_tasks(self) -> sa.Select[Any]:
        table = self.models.task
        return sa.select(*(table.c[name] for name in self._names if name in self._columns[table]))

    @memoized_property
    def _select_task(self) -> sa.Select[Any]:
        return self._select_tasks.where(self.models.task.c.task_id == sa.bindparam("id_"))

    @memoized_property
    def _select_many(self) -> sa.Select[Any]:
        return self._select_tasks.where(self.impl.one_of(self.models.task.c.task_id))

    @memoized_property
    def _states(self) -> sa.Select[Any]:
        columns = self.models.task.c
        return sa.select(columns.task_id, columns.status).where(self.impl.one_of(columns.task_id))

    @memoized_property
    def _leave_row(self) -> sa.Select[Any]:
        return self.impl.leave_row(self._select_task, self.models.waiters, states.READY_STATES)

    @memoized_property
    def _leave_rows(self) -> sa.Select[Any]:
        return self.impl.leave_rows(self._select_many, self.models.waiters, states.READY_STATES)

    @memoized_property
    def _withdraw(self) -> sa.Delete:
        return self.impl.withdraw(self.models.waiters)

    @memoized_property
    def _select_group(self) -> sa.Select[Any]:
        table = self.models.group
        columns = (column for column in table.columns if column.name in self._columns[table] - {"id"})
        return sa.select(*columns).where(table.c.taskset_id == sa.bindparam("id_"))

    @memoized_property
    def _put_finished(self) -> Put:
        return Put(self.models.task, "task_id", _FINAL, self._waiters)

    @memoized_property
    def _put_unfinished(self) -> Put:
        return Put(self.models.task, "task_id", _FINISHED, self._waiters)

    def _that_are_there(self, table: sa.Table, row: Row) -> Row:
        """The columns that the table has."""
        if table not in self._lacking:
            return row
        return {name: value for name, value in row.items() if name in self._columns[table]}

    def _wake(self, connection: Any, row: Row) -> None:
        """After the commit, and never in its way: whoever is not woken looks by himself."""
        try:
            finished = row["status"] in states.READY_STATES
            connection.execute(self.impl.wake(self.models.waiters, finished), {"task_id_": row["task_id"]})
        except DBAPIError:
            logger.debug("could not wake those who wait for task %s", row["task_id"], exc_info=True)

    def _fetch_one(self, statement: sa.Select[Any], id_: str) -> Row | None:
        values = {"id_": str(id_)}  # of a UUID, drivers make what they like
        with self.impl.connect_quickly(self.engine) as connection:
            return next(iter(as_dicts(connection.execute(statement, values))), None)

    def _delete(self, column: sa.Column[str], id_: str) -> None:
        with self.impl.connect(self.engine) as connection:
            connection.execute(sa.delete(column.table).where(column == str(id_)))


def _batches(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
