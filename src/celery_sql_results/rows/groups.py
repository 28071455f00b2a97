"""The rows of saved groups: put, fetch, forget."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from celery_sql_results._compat import memoized_property
from celery_sql_results.dialects import DefaultImpl, Put, as_dicts, put_under_a_free_id
from celery_sql_results.models import Models

from .tasks import Columns, Row, is_filled

__all__ = ["GroupRows"]


class GroupRows:
    """The group rows of one backend; see :class:`~.tasks.TaskRows` for the arguments."""

    def __init__(self, engine: Engine, impl: DefaultImpl, models: Models, columns: Columns) -> None:
        self.engine = engine
        self.impl = impl
        self._table = models.group
        self._columns = columns[models.group]
        self._put = Put(models.group, "taskset_id")
        filled = is_filled(models.group, ("taskset_id", "result", "date_done", "content_type"))
        self._connect = impl.connect if filled else impl.connect_quickly

    def put(self, row: Row) -> None:
        """Store a row, in place of the one that is there."""
        there = {name: value for name, value in row.items() if name in self._columns}
        with self._connect(self.engine) as connection:
            put_under_a_free_id(self.impl, connection, self._put, there)

    def put_unless_newer(self, row: Row) -> None:
        """Store a row that comes late, unless the group was saved again since: it has no state that would tell."""
        found = self.fetch(row["taskset_id"])
        there, here = found and found["date_done"], row["date_done"]
        if not isinstance(there, datetime) or here is None or there <= here:  # some drivers read a date of zero as text
            self.put(row)

    def fetch(self, group_id: str) -> Row | None:
        """The row of one group, or ``None``."""
        with self.impl.connect_quickly(self.engine) as connection:
            return next(iter(as_dicts(connection.execute(self._select, {"id_": group_id}))), None)

    def forget(self, group_id: str) -> None:
        """Delete the row of one group, if there is one; its members stay."""
        with self.impl.connect(self.engine) as connection:
            connection.execute(sa.delete(self._table).where(self._table.c.taskset_id == group_id))

    @memoized_property
    def _select(self) -> sa.Select[Any]:
        columns = (column for column in self._table.columns if column.name in self._columns - {"id"})
        return sa.select(*columns).where(self._table.c.taskset_id == sa.bindparam("id_"))
