"""The load on a cluster: a worker with processes and one with threads, their callers, and who stores directly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from celery import Celery, chord
from celery.result import AsyncResult

from acceptance.worker import Worker, running, settings_for
from clusters.tasks import equipped, signature
from concurrency.nursery import Nursery
from faults.actors import CALLED, LONG, SETTINGS, Journal, app_on, journal, noted
from faults.load import Load

#: Processes that call tasks, and those that store and wait; few, since all share the processors with the servers.
CALLERS, WRITERS, WAITERS = 2, 2, 1
#: Tasks that are called at once, and parts of the chord that is called with them.
TASKS, PARTS = 4, 4
#: The pauses and the patience that apps have by default: what a user would see.
AS_BY_DEFAULT = dict.fromkeys(SETTINGS)


@contextmanager
def workers_on(url: str, broker: str, folder: Path, **more: Any) -> Iterator[None]:
    """Two workers, with processes and with threads, that store under a URL."""
    own = {"broker_url": broker, "broker_transport_options": {}, "imports": ["clusters.tasks"]}
    settings = settings_for(folder, f"sql+{url}", **own, **more)
    pools = {"processes": ["--concurrency=2"], "threads": ["--pool=threads", "--concurrency=3"]}
    with running(*(Worker(folder, settings, *arguments, name=name) for name, arguments in pools.items())):
        yield


def load_on(nursery: Nursery, url: str, broker: str, folder: Path, settings: Mapping[str, Any] | None = None) -> Load:
    """The load of a cluster whose workers are running."""
    own = {**AS_BY_DEFAULT, "broker_url": broker, **(settings or {})}
    callers = [(call, (url, folder, own, caller)) for caller in range(CALLERS)]
    return Load(nursery, url, folder, writers=WRITERS, waiters=WAITERS, settings=own, others=callers)


def call(url: str, folder: Path, settings: Mapping[str, Any], caller: int) -> None:
    """Call tasks and chords, and wait for them, until told to stop."""
    app, mine = equipped(app_on(url, **settings)), journal(folder, f"caller-{caller}")
    for number in count():
        if (folder / "stop").exists():
            return
        for task_id in send(app, mine, f"{folder.name}-caller{caller}-{number}", folder):
            noted(mine, task_id, lambda id_=task_id: AsyncResult(id_, app=app).get(timeout=LONG))


def send(app: Celery, mine: Journal, name: str, folder: Path) -> list[str]:
    """Send some tasks and a chord, and name those that are to be waited for."""
    tasks, parts = ([f"{name}-{kind}{number}" for number in range(TASKS)] for kind in ("task", "part"))
    body = f"{name}-body"
    for task_id in (*tasks, *parts, body):
        mine.note(CALLED, task_id)
    for task_id in tasks:
        signature(app, "give", task_id, folder).apply_async()
    chord([signature(app, "give", part, folder) for part in parts], app=app)(signature(app, "total", body, folder))
    return [*tasks, body]
