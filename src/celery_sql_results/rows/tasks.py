"""The rows of tasks: put, fetch, fetch many, forget.

The guard of a write lives here: SUCCESS is never overwritten, a finished state never by an unfinished one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import sqlalchemy as sa
from celery import states
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from celery_sql_results._compat import memoized_property
from celery_sql_results.dialects import DefaultImpl, Put, as_dicts, put_under_a_free_id
from celery_sql_results.foreign import escaping
from celery_sql_results.ids import BLANK
from celery_sql_results.models import EXTENDED_COLUMNS, RECORDED_COLUMNS, TASK_COLUMNS, Models

__all__ = ["Columns", "Row", "TaskRows", "batches", "is_filled"]

logger = escaping(logging.getLogger(__name__))
Row = Mapping[str, Any]
T = TypeVar("T")
#: The columns that each table really has; others are neither written nor read.
Columns = Mapping[sa.Table, frozenset[str]]

#: The states that a finished and an unfinished state may not replace.
_FINAL = (states.SUCCESS,)
_FINISHED = tuple(sorted(states.READY_STATES))


class TaskRows:
    """The task rows of one backend.

    Args:
        engine: an engine as :class:`~celery_sql_results.session.SessionManager` makes it.
        impl: how its database is spoken to.
        models: the tables.
        columns: what is there of them.
        extended: whether to read all that ``result_extended`` adds.
        notifies: whether a write looks for waiters.
    """

    def __init__(
        self, engine: Engine, impl: DefaultImpl, models: Models, columns: Columns, extended: bool, notifies: bool
    ) -> None:
        self.engine = engine
        self.impl = impl
        self.models = models
        #: The columns that the table really has.
        self.columns = self._columns = columns[models.task]
        #: Whether every column is there that a row may have: a class of the user's may know fewer.
        self._is_whole = self._columns == {*models.task.columns.keys(), *TASK_COLUMNS, *EXTENDED_COLUMNS}
        self._is_filled = is_filled(models.task, TASK_COLUMNS)
        waiters = models.waiters if notifies else None
        self._put_finished = Put(models.task, "task_id", _FINAL, waiters)
        self._put_unfinished = Put(models.task, "task_id", _FINISHED, waiters)
        self._put_part = Put(models.parts, "task_id", _FINAL)
        self._put_once = Put(models.task, "task_id", _FINAL)
        self._names = (*TASK_COLUMNS, *(EXTENDED_COLUMNS if extended else ()))

    def put(self, row: Row, part: Row | None = None) -> None:
        """Store a row, unless what is stored may not be replaced, and wake whoever waits for it.

        ``part`` is what the task leaves behind as a part of a chord; it is stored in the same commit.
        """
        finished = row["status"] in states.READY_STATES
        where, wake = (self._put_finished if finished else self._put_unfinished), self._wakes[finished]
        if not self._is_whole:
            row = {name: value for name, value in row.items() if name in self._columns}
        if part is None and not self._is_filled and self.impl.put_at_once(self.engine, where, row):
            return
        connect = self.impl.connect if self._is_filled else self.impl.connect_quickly
        with connect(self.engine) as connection:
            of_chord = None if part is None else (self._put_part, part)
            awaited = put_under_a_free_id(self.impl, connection, where, row, wake, of_chord)
            if awaited and wake is not None:
                self._wake(connection, wake, row)

    def put_once(self, connection: Any, row: Row, part: Row | None = None) -> bool:
        """Store a row and a part in a transaction of the task's own: ``False`` if the task has SUCCESS already.

        Nobody is woken, as nothing is committed yet. Whoever has written the same row waits, and whoever comes later.
        """
        row = {name: value for name, value in row.items() if name in self._columns}
        stored = self.impl.put_once(connection, self._put_once, row)
        if stored and part is not None:
            self.impl.put_once(connection, self._put_part, part)
        return stored

    def identity(self, connection: Any, name: str, shared: bool = False) -> Any:
        """What tells the database of a connection, and the table of results there, from others."""
        transactions = self.impl.transactions
        ask = transactions.shared_identity if shared else transactions.identity
        return ask(connection, self.models.task, name)

    def add_children(self, task_id: str, children: bytes | None) -> None:
        """Note what a task has sent, of which a part was sent after its SUCCESS was stored."""
        if "children" in self._columns:
            with self.impl.connect_quickly(self.engine) as connection:
                connection.execute(self._add_children, {"id_": task_id, "children_": children})

    def wake(self, row: Row) -> None:
        """Wake whoever waits for a task, if its outcome was not :meth:`put`."""
        wake = self._wakes[True]
        if wake is not None:
            with suppress(DBAPIError), self.impl.connect_quickly(self.engine) as connection:
                self._wake(connection, wake, row)

    def _wake(self, connection: Any, wake: sa.Executable, row: Row) -> None:
        """After the commit, and never in its way: whoever is not woken looks by himself."""
        try:
            connection.execute(wake, {"task_id_": row["task_id"]})
        except DBAPIError:
            logger.debug("could not wake those who wait for task %s", row["task_id"], exc_info=True)

    def fetch(self, task_id: str) -> Row | None:
        """The row of one task, or ``None``."""
        with self.impl.connect_quickly(self.engine) as connection:
            found = as_dicts(connection.execute(self.select_one, {"id_": task_id}))
        return {**found[0], "task_id": task_id} if found else None

    def fetch_recorded(self, task_id: str) -> Row:
        """What is recorded of a task beside its outcome, if it has a row. Whoever waits has no need of it."""
        with self.impl.connect_quickly(self.engine) as connection:
            found = as_dicts(connection.execute(self._recorded, {"id_": task_id}))
        return found[0] if found else {}

    def fetch_many(self, task_ids: Collection[str]) -> list[Row]:
        """The rows of those of ``task_ids`` that have one, in no order; one query for up to ``impl.max_parameters``."""
        if len(task_ids) == 1:  # planned once, where a list of any length is planned each time
            return [row for row in [self.fetch(*task_ids)] if row]
        some = batches(list(task_ids), self.impl.max_parameters)
        with self.impl.connect_quickly(self.engine) as connection:
            found = [row for ids in some for row in as_dicts(connection.execute(self.select_many, {"ids_": ids}))]
        return self._as_asked(task_ids, found)

    def _as_asked(self, task_ids: Collection[str], found: list[Row]) -> list[Row]:
        """Rows by the ids that were asked for, where the database takes ids for one that differ in trailing blanks."""
        if not self.impl.pads or not found:
            return found
        are_padded = any(id_.endswith(BLANK) for id_ in task_ids)
        if not are_padded and {row["task_id"] for row in found} <= set(task_ids):
            return found
        asked: dict[str, list[str]] = {}
        for id_ in task_ids:
            asked.setdefault(id_.rstrip(BLANK), []).append(id_)
        return [{**row, "task_id": id_} for row in found for id_ in asked.get(row["task_id"].rstrip(BLANK), ())]

    def fetch_states(self, task_ids: Collection[str]) -> dict[str, str]:
        """The states of those of ``task_ids`` that have a row."""
        with self.impl.connect_quickly(self.engine) as connection:
            some = batches(list(task_ids), self.impl.max_parameters)
            found = [as_dicts(connection.execute(self._states, {"ids_": ids})) for ids in some]
        return {row["task_id"]: row["status"] for rows in found for row in self._as_asked(task_ids, rows)}

    def exists(self, task_id: str) -> bool:
        """Whether the task has a row, in whatever state."""
        statement = sa.select(sa.true()).where(self.models.task.c.task_id == task_id)
        with self.impl.connect(self.engine) as connection:
            return connection.execute(statement).first() is not None

    def forget(self, task_id: str) -> None:
        """Delete the row of one task, if there is one."""
        with self.impl.connect(self.engine) as connection:
            connection.execute(sa.delete(self.models.task).where(self.models.task.c.task_id == task_id))

    # -- statements ----------------------------------------------------------------------------------------------

    @memoized_property
    def select_one(self) -> sa.Select[Any]:
        """The row of the task that is bound as ``id_``."""
        return self._select.where(self.models.task.c.task_id == sa.bindparam("id_"))

    @memoized_property
    def _recorded(self) -> sa.Select[Any]:
        task = self.models.task.c
        columns = [task[name] for name in RECORDED_COLUMNS if name in self._columns]
        return sa.select(sa.literal_column("1").label("found"), *columns).where(task.task_id == sa.bindparam("id_"))

    @memoized_property
    def select_many(self) -> sa.Select[Any]:
        """The rows of the tasks that are bound as ``ids_``."""
        return self._select.where(self.impl.one_of(self.models.task.c.task_id))

    @memoized_property
    def _select(self) -> sa.Select[Any]:
        return sa.select(*(self.models.task.c[name] for name in self._names if name in self._columns))

    @memoized_property
    def _wakes(self) -> tuple[sa.Executable | None, sa.Executable | None]:
        """What wakes those who wait for a task that is not finished, and for one that is."""
        if self._put_finished.waiters is None:
            return None, None
        return self.impl.wake(self.models.waiters, False), self.impl.wake(self.models.waiters, True)

    @memoized_property
    def _add_children(self) -> sa.Update:
        task = self.models.task
        same = task.c.task_id == sa.bindparam("id_"), task.c.status == sa.literal_column(f"'{states.SUCCESS}'")
        return sa.update(task).where(*same).values(children=sa.bindparam("children_"))

    @memoized_property
    def _states(self) -> sa.Select[Any]:
        columns = self.models.task.c
        return sa.select(columns.task_id, columns.status).where(self.impl.one_of(columns.task_id))


def is_filled(table: sa.Table, written: Collection[str]) -> bool:
    """Whether SQLAlchemy has values of its own for columns that we do not write, in a table of the user's."""
    columns = (column for column in table.columns if column.key not in written)
    return any(column.default is not None and not column.default.is_sequence for column in columns)


def batches(ids: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The ids, or what else there is, so many at once."""
    return (ids[start : start + size] for start in range(0, len(ids), size))
