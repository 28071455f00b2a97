"""A worker without its process: tasks run as Celery traces them, and what they write can be counted."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from celery import Celery, Task
from celery.app.trace import build_tracer
from sqlalchemy.orm import Session

from celery_sql_results import DatabaseBackend
from servers import Database

#: What a task does, given itself.
Body = Callable[[Task], Any]

EFFECTS = sa.Table("effects", sa.MetaData(), sa.Column("task_id", sa.String(100)), mysql_engine="InnoDB")


def run(self: Task, body: Body) -> Any:
    """Do what the test says."""
    return body(self)


class Stage:
    """An app whose tasks run here, and the rows that they write in the database of its results."""

    def __init__(self, app: Celery, database: Database) -> None:
        self.app, self.database = app, database
        self.backend: DatabaseBackend = app.backend
        self.task: Task = app.task(name="run", bind=True)(run)
        self.engine = sa.create_engine(database.url)
        EFFECTS.create(self.engine, checkfirst=True)

    def close(self) -> None:
        """Close what the tasks have opened."""
        self.engine.dispose()
        self.app.close()

    def traced(self, body: Body, task_id: str | None = None, **request: Any) -> str:
        """Run a task as a worker does, and return its id."""
        task_id = task_id or str(uuid.uuid4())
        known = {
            "id": task_id,
            "task": self.task.name,
            "delivery_info": {},
            "called_directly": False,
            "is_eager": False,
            **request,
        }
        tracer = build_tracer(self.task.name, self.task, app=self.app)
        tracer(task_id, (body,), {}, known)
        return task_id

    def state(self, task_id: str) -> tuple[str, Any]:
        """The state of a task, and its result or what it has raised."""
        meta = self.backend.get_task_meta(task_id, cache=False)
        return meta["status"], meta["result"]

    def effects(self, task_id: str) -> int:
        """How many rows a task has written for good."""
        with self.engine.connect() as connection:
            count = sa.select(sa.func.count()).where(EFFECTS.c.task_id == task_id)
            return int(connection.execute(count).scalar_one())


def write(given: Session | sa.Connection, task: Task) -> None:
    """Write a row of the task's own."""
    given.execute(sa.insert(EFFECTS).values(task_id=task.request.id))
