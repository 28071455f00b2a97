"""A caller and a worker in a place: here in a thread, or in a process of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery
from celery.contrib.testing.app import setup_default_app
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult, ResultSet

from acceptance.broker import broker_in
from acceptance.worker import LOG_FORMAT, Worker, running
from crossings.app import equip
from crossings.axes import Crossing
from crossings.place import Place, placed
from servers.pool import Pool
from support import close

#: Seconds in which a result must be there; generous, since a loaded machine is slow.
PATIENCE = 20.0
#: Seconds after which a worker here gets one more task: it looks whether it is to end only when it has had one.
A_MOMENT = 0.1
#: Seconds between two looks.
TICK = 0.02


@dataclass(frozen=True)
class Stage:
    """What a scenario has at hand."""

    app: Celery
    place: Place
    began: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def is_(self, axis: str, *values: str) -> bool:
        """Whether the crossing has one of some values."""
        return self.place.crossing[axis] in values

    def result(self, task_id: str) -> AsyncResult:
        """The result of a task, as a caller has it from the id alone."""
        own = self.is_("classes", "our-classes")
        return self.app.AsyncResult(task_id) if own else AsyncResult(task_id, app=self.app)

    def set_of(self, *task_ids: str) -> ResultSet:
        """The results of some tasks."""
        own = self.is_("classes", "our-classes")
        results = [self.result(task_id) for task_id in task_ids]
        return self.app.ResultSet(results) if own else ResultSet(results, app=self.app)

    def found(self, result: AsyncResult) -> Any:
        """What a task returned; raises what it raised."""
        return result.get(timeout=PATIENCE)

    def look(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement past the backend; `{tasks}` and `{groups}` are the tables."""
        sql = sql.format(tasks=self.place.tasks, groups=self.place.groups)
        if self.place.database:
            return self.place.database.execute(sql)
        with self.app.backend.ResultSession() as session:
            answer = session.execute(sa.text(sql))
            rows = [tuple(row) for row in answer] if answer.returns_rows else []
            session.commit()
            return rows


def eventually(found: Callable[[], object], expected: object) -> object:
    """What is found as soon as it is what was expected, or at the latest when patience ends."""
    deadline = time.monotonic() + PATIENCE
    while (last := found()) != expected and time.monotonic() < deadline:
        time.sleep(TICK)
    return last


@contextmanager
def meanwhile(do: Callable[[], object]) -> Iterator[list[object]]:
    """Do something in another thread; the list holds what it returned, or its error, when the block has ended."""
    done: list[object] = []

    def run() -> None:
        try:
            done.append(do())
        except Exception as error:  # noqa: BLE001 - the test compares whatever came
            done.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield done
    thread.join()


@contextmanager
def staged(crossing: Crossing, servers: Pool, folder: Path) -> Iterator[Stage]:
    """A caller and a worker on a fresh database."""
    with placed(crossing, servers, folder) as place:
        app = equip(Celery("crossings", set_as_current=False), crossing, {**broker_in(folder), **place.settings})
        with setup_default_app(app), closed(app), worker_for(crossing, app, place, folder):
            yield Stage(app, place)


@contextmanager
def closed(app: Celery) -> Iterator[None]:
    """Close what an app has opened, before its database is dropped."""
    backend = app.backend
    try:
        yield
    finally:
        close(backend)


@contextmanager
def worker_for(crossing: Crossing, app: Celery, place: Place, folder: Path) -> Iterator[None]:
    """The worker of a crossing."""
    pool, _, here = crossing["worker"].partition("-")
    if here:
        threads = 3 if pool == "threads" else 1
        with start_worker(app, pool=pool, concurrency=threads, perform_ping_check=False, shutdown_timeout=PATIENCE):
            yield
            threading.Timer(A_MOMENT, app.tasks["crossings.number"].delay, (0,)).start()
        return
    told = {
        "broker_connection_retry_on_startup": True,
        "crossing": dict(crossing),
        "imports": ["crossings.app"],
        "of_place": {**broker_in(folder), **place.settings},
        "worker_log_format": LOG_FORMAT,
    }
    worker = Worker(folder, told, f"--pool={pool}", "--concurrency=2")
    with running(worker):
        try:
            yield
        finally:
            print(worker.log)
