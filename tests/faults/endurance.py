"""A process that works for long while its connections are ended again and again, and what that has cost it."""

from __future__ import annotations

import gc
import logging
import os
import threading
import tracemalloc
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult

from celery_sql_results.errors import TaskIdTooLong
from concurrency.actors import quick
from faults.actors import app_on, value_of
from faults.trouble import CONNECTIONS, END, OWN
from support import close

#: An operation in so many is a wait that ends with a time-out, and one is refused: they cost more, or nothing.
RARELY = 25


class Held(NamedTuple):
    """What a process holds: descriptors, threads, bytes of Python's objects, and kilobytes of the system's memory."""

    descriptors: int
    threads: int
    objects: int
    resident: int


def held() -> Held:
    """What this process holds just now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    objects, _peak = tracemalloc.get_traced_memory()
    return Held(
        len(os.listdir("/proc/self/fd")), threading.active_count(), objects, pages * os.sysconf("SC_PAGE_SIZE") // 1024
    )


class Striker:
    """Ends the connections of this process, on one of its own."""

    def __init__(self, kind: str, url: str, name: str) -> None:
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool, **quick(url))
        self._connection, self._kind = engine.connect(), kind
        self._find = CONNECTIONS[kind].format(name)
        self._own = self._connection.exec_driver_sql(OWN[kind]).scalar_one()

    def strike(self) -> int:
        """End all others, and return how many there were."""
        others = set(self._connection.exec_driver_sql(self._find).scalars()) - {self._own}
        for id_ in others:
            with suppress(sa.exc.DBAPIError):  # it has ended by itself meanwhile
                self._connection.exec_driver_sql(END[self._kind].format(id_))
        return len(others)

    def close(self) -> None:
        """End the own one."""
        self._connection.close()


def endure(kind: str, url: str, name: str, rounds: tuple[int, ...], every: int) -> list[tuple[Held, int]]:
    """Make so many operations in each round, and a strike after ``every`` ones; what is held then, and was ended."""
    logging.getLogger("celery_sql_results").setLevel(logging.CRITICAL)  # a log in memory would be what grows
    app, striker, numbers = app_on(url, result_cache_max=10), Striker(kind, url, name), count()
    tracemalloc.start()
    found = []
    for operations in rounds:
        ended = 0
        for number in range(operations):
            operate(app, next(numbers))
            ended += striker.strike() if number % every == 0 else 0
        found.append((held(), ended))
    close(app.backend)
    striker.close()
    return found


def operate(app: Any, number: int) -> None:
    """One operation: a store or a read, and sometimes what ends with an error."""
    task_id = f"task-{number - number % 2}"
    if number % RARELY == 0:
        with suppress(CeleryTimeoutError):
            AsyncResult("never", app=app).get(timeout=0)
    elif number % RARELY == 1:
        with suppress(TaskIdTooLong):
            app.backend.store_result("x" * 1000, None, states.SUCCESS)
    elif number % 2 == 0:
        app.backend.store_result(task_id, value_of(task_id), states.SUCCESS)
    else:
        app.backend.get_task_meta(task_id)
