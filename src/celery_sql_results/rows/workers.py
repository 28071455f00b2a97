"""The rows of the workers that are alive, or were."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from celery_sql_results._compat import memoized_property
from celery_sql_results.dialects import DefaultImpl, Put, as_dicts, put_under_a_free_id
from celery_sql_results.models import Models, utc_now

from .tasks import Row

__all__ = ["GONE_AFTER", "WorkerRows"]

#: How long a worker may be silent before people are told that it is gone: four beats of its heart.
GONE_AFTER: Final = timedelta(seconds=60)
#: What one run of a worker says with each beat.
_SAID = ("date_started", "clock", "versions", "spooled", "busy", "concurrency")


class WorkerRows:
    """The workers of one backend: each of their runs has a row. Reading needs no more than the right to read.

    Args:
        engine: an engine as :class:`~celery_sql_results.session.SessionManager` makes it.
        impl: how its database is spoken to.
        models: the tables.
    """

    def __init__(self, engine: Engine, impl: DefaultImpl, models: Models) -> None:
        self._engine = engine
        self._impl = impl
        self._workers = models.workers
        self._put = Put(models.workers, "run_id")

    def seen(self, run: Row) -> None:
        """A run of a worker is there now, by the clock of the database. ``run`` has the columns but ``date_seen``.

        One UPDATE as a rule; the first time, or where somebody has deleted the row, it is put before.
        """
        values = {f"{name}_": run[name] for name in ("name", "run_id", *_SAID)}
        with self._impl.connect(self._engine) as connection:
            if connection.execute(self._beat, values).rowcount != 1:
                put_under_a_free_id(self._impl, connection, self._put, {**run, "date_seen": utc_now()})
                connection.execute(self._beat, values)

    def ended(self, name: str, run_id: str) -> None:
        """A run has ended as it should. Its row stays until it is swept: a task that it has left behind is lost."""
        now = self._impl.now()
        with self._impl.connect(self._engine) as connection:
            connection.execute(self._run.values(date_ended=now, date_seen=now), {"name_": name, "run_id_": run_id})

    def all(self, gone_after: timedelta = GONE_AFTER) -> list[Row]:
        """Every known run by name, the latest first; ``is_gone`` if it has ended, or was not seen for so long."""
        workers = self._workers.c
        late = sa.or_(workers.date_ended.is_not(None), workers.date_seen < self._impl.now(-gone_after))
        is_gone = sa.case((late, sa.true()), else_=sa.false()).label("is_gone")
        found = sa.select(*workers, is_gone).order_by(workers.name, workers.date_started.desc(), workers.run_id)
        with self._impl.connect(self._engine) as connection:
            return [{**row, "is_gone": bool(row["is_gone"])} for row in as_dicts(connection.execute(found))]

    def sweep(self, older_than: timedelta) -> int:
        """Delete the rows of runs that were not seen for so long, and return how many."""
        old = self._workers.c.date_seen < self._impl.now(-older_than)
        with self._impl.connect(self._engine) as connection:
            return connection.execute(sa.delete(self._workers).where(old)).rowcount

    # -- statements ----------------------------------------------------------------------------------------------

    @memoized_property
    def _run(self) -> sa.Update:
        workers = self._workers.c
        same = (workers[name] == sa.bindparam(f"{name}_") for name in ("name", "run_id"))
        return sa.update(self._workers).where(*same)

    @memoized_property
    def _beat(self) -> sa.Update:
        said: dict[str, Any] = {name: sa.bindparam(f"{name}_", type_=self._workers.c[name].type) for name in _SAID}
        return self._run.values(date_seen=self._impl.now(), **said)
