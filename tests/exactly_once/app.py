"""Tasks that complete themselves, and are killed on the way: once each, where they are told."""

from __future__ import annotations

import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery, Task
from celery.signals import task_postrun

from acceptance import shop
from celery_sql_results import DatabaseBackend, complete

#: Where a task can be killed, in the order in which it comes there.
STEPS = ("begun", "written", "completed", "committed", "returned", "stored", "over")


class MortalBackend(DatabaseBackend):
    """Kills its process before Celery stores what a task has returned, or after it."""

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, *args: Any, **kwargs: Any) -> None:
        reach("returned", request)
        super().mark_as_done(task_id, result, request, *args, **kwargs)
        reach("stored", request)


def reach(step: str, request: Any) -> None:
    """Die at a step, as when memory runs out, if the task is to and has not yet; or hang, until somebody kills it."""
    if not request.kwargs or request.kwargs.get("step") != step:
        return
    died = Path(request.kwargs["graves"], f"{request.id}")
    try:
        died.touch(exist_ok=False)
    except FileExistsError:
        return
    if request.kwargs.get("hangs"):
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)


@task_postrun.connect
def over(task: Any = None, **_: Any) -> None:
    """All is done but the acknowledgement."""
    reach("over", task.request)


@cache
def engine_of(process: int, url: str) -> sa.Engine:
    """The task's own engine: one for each process."""
    return sa.create_engine(url, pool_size=1)


def effect(self: Task, number: int, **_: Any) -> int:
    """Leave a row, and return the number."""
    with engine_of(os.getpid(), self.app.conf.database_url).connect() as connection:
        reach("begun", self.request)
        connection.execute(sa.text("INSERT INTO effects VALUES (:task_id)"), {"task_id": str(number)})
        reach("written", self.request)
        complete(connection, number)
        reach("completed", self.request)
        connection.commit()
        reach("committed", self.request)
    return number


def total(self: Task, numbers: list[int]) -> int:
    """Be the body of a chord, which leaves a row as well."""
    return effect(self, sum(numbers))


def next_one(self: Task, number: int) -> int:
    """Be the next of a chain."""
    return effect(self, number + 1)


def equipped(app: Celery) -> Celery:
    """The app with the tasks of this module, each delivered again if its process dies."""
    for task in (effect, total, next_one):
        app.task(name=f"once.{task.__name__}", bind=True, acks_late=True, reject_on_worker_lost=True)(task)
    return app


if shop.VARIABLE in os.environ:
    equipped(shop.app)
