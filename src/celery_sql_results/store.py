"""The rows: put, fetch, fetch many, forget, and groups. One statement each, in one round trip where the database can.

The guard of a write lives here: SUCCESS is never overwritten, a finished state never by an unfinished one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from celery import states
from sqlalchemy.engine import Engine

from .dialects import DefaultImpl
from .models import EXTENDED_COLUMNS, TASK_COLUMNS, Models

__all__ = ["Store"]

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
    """

    def __init__(
        self,
        engine: Engine,
        impl: DefaultImpl,
        models: Models,
        columns: Mapping[sa.Table, frozenset[str]],
        extended: bool = False,
    ) -> None:
        self.engine = engine
        self.impl = impl
        self.models = models
        self._columns = columns
        self._lacking = {table for table in models.tables if columns[table] != frozenset(table.columns.keys())}
        self._names = (*TASK_COLUMNS, *EXTENDED_COLUMNS) if extended else TASK_COLUMNS

    # -- tasks ---------------------------------------------------------------------------------------------------

    def put(self, row: Row) -> None:
        """Store a task row, unless what is stored may not be replaced."""
        protected = _FINAL if row["status"] in states.READY_STATES else _FINISHED
        self._put(self.models.task, "task_id", row, protected)

    def fetch(self, task_id: str) -> Row | None:
        """The row of one task, or ``None``."""
        return self._fetch_one(self._select_task, task_id)

    def fetch_many(self, task_ids: Collection[str]) -> Iterator[Row]:
        """The rows of those of ``task_ids`` that have one, in no order; one query for up to ``impl.max_parameters``."""
        column = self.models.task.c.task_id
        for ids in _batches(list(task_ids), self.impl.max_parameters):
            with self.impl.connect(self.engine) as connection:
                rows = connection.execute(self._select_tasks.where(self.impl.one_of(column, ids))).all()
            yield from (row._asdict() for row in rows)

    def exists(self, task_id: str) -> bool:
        """Whether the task has a row, in whatever state."""
        statement = sa.select(sa.true()).where(self.models.task.c.task_id == task_id)
        with self.impl.connect(self.engine) as connection:
            return connection.execute(statement).first() is not None

    def forget(self, task_id: str) -> None:
        """Delete the row of one task, if there is one."""
        self._delete(self.models.task.c.task_id, task_id)

    # -- groups --------------------------------------------------------------------------------------------------

    def put_group(self, row: Row) -> None:
        """Store a group row, in place of the one that is there."""
        self._put(self.models.group, "taskset_id", row)

    def fetch_group(self, group_id: str) -> Row | None:
        """The row of one group, or ``None``."""
        return self._fetch_one(self._select_group, group_id)

    def forget_group(self, group_id: str) -> None:
        """Delete the row of one group, if there is one; its members stay."""
        self._delete(self.models.group.c.taskset_id, group_id)

    # -- statements ----------------------------------------------------------------------------------------------

    @cached_property
    def _select_tasks(self) -> sa.Select[Any]:
        table = self.models.task
        return sa.select(*(table.c[name] for name in self._names if name in self._columns[table]))

    @cached_property
    def _select_task(self) -> sa.Select[Any]:
        return self._select_tasks.where(self.models.task.c.task_id == sa.bindparam("id_"))

    @cached_property
    def _select_group(self) -> sa.Select[Any]:
        table = self.models.group
        columns = (column for column in table.columns if column.name in self._columns[table] - {"id"})
        return sa.select(*columns).where(table.c.taskset_id == sa.bindparam("id_"))

    def _put(self, table: sa.Table, key: str, row: Row, protected: tuple[str, ...] = ()) -> None:
        if table in self._lacking:
            row = {name: value for name, value in row.items() if name in self._columns[table]}
        with self.impl.connect(self.engine) as connection:
            self.impl.put(connection, table, key, row, protected)

    def _fetch_one(self, statement: sa.Select[Any], id_: str) -> Row | None:
        with self.impl.connect(self.engine) as connection:
            row = connection.execute(statement, {"id_": id_}).first()
        return row._asdict() if row else None

    def _delete(self, column: sa.Column[str], id_: str) -> None:
        with self.impl.connect(self.engine) as connection:
            connection.execute(sa.delete(column.table).where(column == id_))


def _batches(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
