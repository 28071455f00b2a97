"""A thousand coroutines that await a thousand tasks of a real worker: what they hold and ask, and who gives up."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from acceptance.shop import make_app
from acceptance.worker import Worker, running, settings_for
from celery_sql_results import aio
from servers import Database
from support import Statements, close
from waiting.conftest import until as until_there
from waiting.loops import in_a_loop, until

TASKS = 1000
#: So many of the waits are given up, at random moments.
GIVEN_UP = 300
#: The most that one turn of the loop may compute, in seconds. It is promised to be 20 ms; the time of the thread is
#: counted, not that of the clock, and the rest is for a machine whose cores are shared.
LONGEST_TURN = 0.1
#: Threads and connections of ours that may be there however many wait: one looks, one listens, one closes what is idle.
#: The worker has connections of its own: one for itself, one for each child.
MOST_THREADS, MOST_CONNECTIONS = 3, 2 + 3
CONNECTIONS = {
    "postgresql": "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()",
    "mariadb": "SELECT count(*) - 1 FROM information_schema.processlist WHERE db = database()",
}


async def note(turns: list[float], threads: list[int]) -> None:
    """Note what each turn of the loop computes, in seconds, and how many threads of ours there are."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        turns.append(time.thread_time() - began)
        threads.append(sum("sql-results" in each.name for each in threading.enumerate()))
        await asyncio.sleep(0.002)


async def crowd(app: Celery, ids: list[str], database: Database, seen: dict[str, Any]) -> list[Any]:
    """Await all, give some up, and return what the others have got."""
    tasks = [asyncio.ensure_future(aio.aget(app.AsyncResult(task_id))) for task_id in ids]
    noting = asyncio.ensure_future(note(seen["turns"], seen["threads"]))
    await until(lambda: len(app.backend.looker.awaited()) == TASKS, "all waits")
    if database.kind in CONNECTIONS:
        seen["connections"] = (await asyncio.to_thread(database.execute, CONNECTIONS[database.kind]))[0][0]
    sending = asyncio.ensure_future(asyncio.to_thread(send, app, ids))
    for number in random.sample(range(TASKS), GIVEN_UP):
        tasks[number].cancel()
        await asyncio.sleep(random.uniform(0, 0.01))
    found = await asyncio.gather(*tasks, return_exceptions=True)
    noting.cancel()
    await sending
    seen["left"] = app.backend.looker.awaited()
    return found


def send(app: Celery, ids: list[str]) -> None:
    """Have all tasks done."""
    for number, task_id in enumerate(ids):
        app.tasks["add"].apply_async((number, 1), task_id=task_id)


@pytest.mark.timeout(280)
def test_a_thousand_tasks_of_a_real_worker(statements: Statements, database: Database, tmp_path: Path) -> None:
    """Each that is not given up has its value; nothing is left, and nothing was held for each."""
    settings = settings_for(tmp_path, f"sql+{database.url}", task_track_started=False)
    app, ids = make_app(settings), [f"t-{number}" for number in range(TASKS)]
    seen: dict[str, Any] = {"turns": [], "threads": [], "connections": 0}
    worker = Worker(tmp_path, settings, "--concurrency=2")
    with running(worker):
        app.backend.looker  # noqa: B018 - a process has its backend when it has sent something
        gc.freeze()  # the collector would look at all modules, in the middle of a turn
        with statements() as asked:
            found = in_a_loop(crowd(app, ids, database, seen))
        gc.unfreeze()
        until_there(lambda: not app.backend.looker.awaited(), "the end of the waits")
    looks = [each for each in asked if "FROM celery_taskmeta " in " ".join(each.split()) + " "]
    values = [each for each in found if not isinstance(each, asyncio.CancelledError)]
    close(app.backend)

    assert all(each == number + 1 for number, each in enumerate(found) if not isinstance(each, asyncio.CancelledError))
    assert (len(values) >= TASKS - GIVEN_UP, seen["left"], worker.complaints) == (True, [], [])
    assert max(seen["threads"]) <= MOST_THREADS
    assert seen["connections"] <= MOST_CONNECTIONS
    assert len(looks) < 2 * TASKS
    assert max(seen["turns"]) < LONGEST_TURN
