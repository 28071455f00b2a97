"""Threads and greenlets, which store and wait at once: in a process of our own, and in real workers."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from itertools import pairwise
from pathlib import Path

import pytest
from celery import Celery, group
from celery.result import AsyncResult

from acceptance.shop import make_app
from acceptance.worker import Worker, running, settings_for
from servers import Database
from servers.pool import on
from support import need
from waiting.conftest import PATIENCE

PROGRAM = Path(__file__).with_name("greenlets.py")
#: A pool and a kind of database for each of the workers.
POOLS = [
    ("postgresql", "gevent"),
    ("postgresql", "eventlet"),
    ("mariadb", "gevent"),
    ("postgresql", "threads"),
    ("sqlite", "threads"),
]


@on("postgresql", "psycopg2", "mariadb", "sqlite", "portable")
@pytest.mark.parametrize("how", ["gevent", "eventlet", "threads"])
def test_greenlets_and_threads_store_and_wait_at_once(database: Database, how: str) -> None:
    """50 of them; nothing is written to standard error."""
    need(how)
    path = os.pathsep.join([str(PROGRAM.parents[1]), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), how, database.url],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=4 * PATIENCE,
    )

    assert (ended.stderr, ended.stdout, ended.returncode) == ("", "50\n", 0)


def followers(app: Celery, number: int) -> AsyncResult:
    """Send tasks each of which waits for the next, then the one that all wait for; return the last to be done."""
    ids = [str(uuid.uuid4()) for _ in range(number + 1)]
    for task_id, awaited in pairwise(ids):
        app.tasks["follow"].apply_async((awaited,), task_id=task_id)
    app.tasks["add"].apply_async((1, 0), task_id=ids[-1])
    return app.AsyncResult(ids[0])


@pytest.mark.parametrize(("database", "pool"), POOLS, indirect=["database"])
def test_a_worker_stores_while_a_caller_waits(database: Database, pool: str, tmp_path: Path) -> None:
    """50 tasks in a pool of 20, of which some fail; then tasks that wait for each other in that pool; no complaints."""
    need(pool)
    settings = settings_for(tmp_path, f"sql+{database.url}")
    worker = Worker(tmp_path, settings, f"--pool={pool}", "--concurrency=20")
    app = make_app(settings)
    add, fail = app.tasks["add"], app.tasks["fail"]
    with running(worker):
        some = group([*(add.s(number, 1) for number in range(45)), *(fail.s("no") for _ in range(5))]).apply_async()
        values = some.get(timeout=PATIENCE, propagate=False)

        last = followers(app, 18)
        assert last.get(timeout=PATIENCE) == 19

    assert values[:45] == [number + 1 for number in range(45)]
    assert [str(value) for value in values[45:]] == ["no"] * 5
    assert (worker.complaints, database.errors()) == ([], [])


@on("postgresql", "mariadb", "sqlite")
def test_tasks_wait_in_the_children_of_a_worker(database: Database, tmp_path: Path) -> None:
    """Each for another that a sibling runs; and each child more than once, in other tasks."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    worker = Worker(tmp_path, settings, "--pool=prefork", "--concurrency=4")
    app = make_app(settings)
    with running(worker):
        assert followers(app, 3).get(timeout=PATIENCE) == 4
        for _ in range(5):
            some = group(app.tasks["ask"].s(number, 1) for number in range(3)).apply_async()
            assert some.get(timeout=PATIENCE) == [1, 2, 3]

    assert (worker.complaints, database.errors()) == ([], [])
