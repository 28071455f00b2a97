"""Nothing grows: neither memory nor descriptors over many operations with faults, nor connections with threads."""

from __future__ import annotations

import os
import threading
from itertools import count
from pathlib import Path

from celery import states

from celery_sql_results import DatabaseBackend
from concurrency.nursery import Nursery, errors
from faults.conftest import Backends
from faults.endurance import endure
from faults.trouble import connections
from servers import Database
from servers.pool import on

#: Operations before the first count, since caches fill slowly, and from there to the second.
WARM_UP, OPERATIONS = 4_000, 10_000
#: Operations between two strikes, each of which ends all connections of the process.
EVERY = 35
STRIKES = OPERATIONS // EVERY
#: How much Python's objects may grow by, in bytes: half of what a leak of a kilobyte per strike would be.
OBJECTS = STRIKES * 1024 // 2
#: How much the process may grow by, in kilobytes: half of what a lost connection of libpq, with its buffers, would be.
RESIDENT = STRIKES * 40 // 2
#: Threads that store at the same time, and how often others take their place.
THREADS, GENERATIONS = 8, 50
#: Connections that SQLAlchemy's pool keeps unless told otherwise.
POOL_SIZE = 5


@on("postgresql", "mariadb")
def test_memory_and_descriptors(database: Database, nursery: Nursery) -> None:
    call = (endure, (database.kind, database.url, database.name, (WARM_UP, OPERATIONS), EVERY))
    (outcome,) = nursery.at_once([call])

    assert errors([outcome]) == []
    (before, _), (after, ended) = outcome.value
    assert ended >= STRIKES
    assert after.descriptors <= before.descriptors + 1  # of a connection that a wait has opened just now
    assert after.threads == before.threads
    assert after.objects - before.objects < OBJECTS
    assert after.resident - before.resident < RESIDENT


@on("postgresql", "mariadb", "sqlite")
def test_threads_that_come_and_go(database: Database, backends: Backends) -> None:
    """More of them than the pool keeps connections."""
    backend, numbers = backends(database.url), count()
    for _ in range(GENERATIONS):
        threads = [threading.Thread(target=store, args=(backend, f"t-{next(numbers)}")) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert database.execute("SELECT count(*) FROM celery_taskmeta") == [(GENERATIONS * THREADS,)]
    # SQLite keeps the descriptor of a closed connection while another one holds a lock: sqlite.org/howtocorrupt.html
    assert 0 < held(database) <= (THREADS if database.kind == "sqlite" else POOL_SIZE)


def store(backend: DatabaseBackend, task_id: str) -> None:
    """What a thread does in its short life."""
    backend.store_result(task_id, task_id, states.SUCCESS)


def held(database: Database) -> int:
    """How many connections to the database there are, or descriptors of its file."""
    if database.kind != "sqlite":
        return len(connections(database))
    opened = (Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.path.realpath(link).endswith(f"/{database.name}.db") for link in opened)
