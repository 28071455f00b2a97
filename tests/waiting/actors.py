"""What other processes of these tests do while the test's own looks on. Each says `here-…` when it begins to wait."""

from __future__ import annotations

import threading
from typing import Any

from celery import states

from celery_sql_results import DatabaseBackend
from concurrency.nursery import PATIENCE, at_once, complaints, errors
from servers import Database
from support import app_on
from waiting.conftest import until


def backend_on(url: str) -> DatabaseBackend:
    """A backend as an app of its own makes it."""
    backend: DatabaseBackend = app_on(url).backend
    return backend


def wait(backend: DatabaseBackend, name: str, task_id: str) -> Any:
    """Say that we are here and wait for a task; return its value."""
    backend.store_result(f"here-{name}", None, states.SUCCESS)
    return backend.app.AsyncResult(task_id).get(timeout=PATIENCE)


def wait_alone(url: str, name: str, task_id: str) -> Any:
    """The same in a process that has done nothing yet."""
    return wait(backend_on(url), name, task_id)


def wait_among_children(url: str, children: int) -> list[Any]:
    """Wait, fork children that wait as well through the same backend, and wait on; return what each has got.

    The children wait for `child`, the parent for `parent`, and when both are there, once more for `again`.
    """
    backend, values = backend_on(url), list[Any]()
    mine = threading.Thread(target=lambda: values.append(wait(backend, "parent", "parent")))
    mine.start()
    until(lambda: "parent" in backend.looker.awaited() and is_under_way(backend))
    outcomes = at_once([(wait, (backend, f"child-{number}", "child")) for number in range(children)])
    backend.store_result("here-still", None, states.SUCCESS)
    mine.join(PATIENCE)
    values.append(wait(backend, "again", "again"))
    return [*values, *(outcome.value for outcome in outcomes), *errors(outcomes), *complaints(outcomes)]


def is_under_way(backend: DatabaseBackend) -> bool:
    """Whether the thread that looks has its connection, or has looked, if it needs none."""
    return backend.looker.is_told(["parent"]) or backend.looker.looks > 0


def until_here(backend: DatabaseBackend, *names: str) -> None:
    """Return when others have said that they are here."""
    for name in names:
        backend.app.AsyncResult(f"here-{name}").get(timeout=PATIENCE)


def until_they_wait(database: Database, task_id: str, number: int) -> None:
    """Return when some processes have left a row for a task; where they leave none, at once."""
    if database.kind == "postgresql":
        mine = f"SELECT count(*) FROM celery_taskmeta_waiters WHERE awaited_id = '{task_id}'"
        until(lambda: database.execute(mine) == [(number,)])
