"""The database of one backend: its engine, and the rows of its tables, which the first who needs them makes ready."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from celery_sql_results.dialects import DefaultImpl
from celery_sql_results.foreign import named
from celery_sql_results.models import Models

from .chords import ChordRows
from .groups import GroupRows
from .tasks import Columns, TaskRows
from .waiters import WaiterRows
from .workers import WorkerRows

__all__ = ["Database", "Rows"]

#: Seconds until a server that only read is looked at again.
LOOK_AGAIN = 5.0


class Rows(NamedTuple):
    """The rows of tables that are ready. Of waiters, chords and workers there are none without their tables."""

    tasks: TaskRows
    groups: GroupRows
    waiters: WaiterRows | None
    chords: ChordRows | None
    workers: WorkerRows | None


class Database:
    """What a backend stores its results in.

    Args:
        engine: gives the engine; called anew for each use, because a fork or an ``invalidate`` may change it.
        impl: how its database is spoken to.
        models: the tables.
        prepare: makes the tables ready, and says what there is of each, and whether the server only reads.
        extended: whether to read all that ``result_extended`` adds.
        listens: whether waiters are notified, where the database can.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        impl: DefaultImpl,
        models: Models,
        prepare: Callable[[Engine, Models], tuple[Columns, bool]],
        extended: bool,
        listens: bool,
    ) -> None:
        self._engine = engine
        self.impl = impl
        self.models = models
        self._prepare = prepare
        self._extended = extended
        self._listens = listens
        self._rows: Rows | None = None
        self._columns: Columns = {}
        self._look_again_at = math.inf

    @property
    def engine(self) -> Engine:
        """The engine. Nothing is connected by asking for it."""
        return self._engine()

    @property
    def name(self) -> str:
        """What the database is called in errors and in the log: its URL without a password."""
        return named(self.engine.url)

    @property
    def was_reached(self) -> bool:
        """Whether the tables have been looked at, by this process or the one that it was forked from."""
        return self._rows is not None

    @property
    def is_in_this_process(self) -> bool:
        """Whether the database is in the memory of this process, so that all threads share one connection to it."""
        return self.impl.is_one_connection(self.engine.url)

    @property
    def reads_only(self) -> bool:
        """Whether the server took no writes when the tables were looked at last, as a standby does not."""
        return self._look_again_at != math.inf

    @property
    def rows(self) -> Rows:
        """The rows. Whoever needs them first makes the tables ready, so this belongs inside of what is tried again.

        While the server only reads, nobody leaves a row of a waiter there. It is looked at again now and then: a
        standby may have been promoted.

        Raises:
            SchemaError: the tables are not there and may not be created.
            sqlalchemy.exc.DBAPIError: the database could not be reached.
        """
        rows = self._rows
        if rows is not None and (self._look_again_at == math.inf or time.monotonic() < self._look_again_at):
            return rows
        return self._looked_at()

    def _looked_at(self) -> Rows:
        columns, reads_only = self._prepare(self.engine, self.models)
        self._look_again_at = time.monotonic() + LOOK_AGAIN if reads_only else math.inf
        if self._rows is None or columns != self._columns:
            self._rows, self._columns = self._rows_of(columns), columns
        return self._rows

    def _rows_of(self, columns: Columns) -> Rows:
        engine, impl, models = self.engine, self.impl, self.models

        def has(*tables: sa.Table) -> bool:
            return all(columns.get(table) for table in tables)

        notifies = self._listens and has(models.waiters)
        tasks = TaskRows(engine, impl, models, columns, self._extended, notifies)
        return Rows(
            tasks=tasks,
            groups=GroupRows(engine, impl, models, columns),
            waiters=WaiterRows(tasks) if notifies else None,
            chords=ChordRows(engine, impl, models, columns) if has(models.chords, models.parts) else None,
            workers=WorkerRows(engine, impl, models) if has(models.workers) else None,
        )
