"""Half a minute of everything at once, by 16 threads: what a process holds for its waits does not grow."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from celery import states
from celery.exceptions import TimeoutError

from celery_sql_results import DatabaseBackend
from faults.test_flat import held
from servers import Database
from servers.pool import on
from support import Backends
from waiting.conftest import PATIENCE, until
from waiting.test_waiters import ROWS
from waiting.writer import Writer

THREADS = 16
#: Seconds on each of the three databases, half a minute in all; the first part is to get going.
WARM_UP, SECONDS = 3.0, 7.0
#: What comes and goes while so many threads are at work: the thread of a first look for each, and connections.
LEEWAY = THREADS + 4

_numbers = count()


class Mix:
    """What the threads do, each at random."""

    def __init__(self, backend: DatabaseBackend) -> None:
        self.backend = backend
        self.done = 0
        self._kinds: list[Callable[[], object]] = [
            self.get,
            self.give_up,
            self.watch,
            self.drop,
            self.forget,
            self.group,
            self.once,
        ]

    def some(self) -> None:
        """One thing."""
        random.choice(self._kinds)()
        self.done += 1

    def result(self) -> Any:
        """A result that nobody else waits for."""
        return self.backend.app.AsyncResult(f"mix-{next(_numbers)}")

    def store(self, result: Any) -> None:
        """Let it be ready."""
        self.backend.store_result(result.id, result.id, states.SUCCESS)

    def get(self) -> None:
        """A result that is stored meanwhile."""
        result = self.result()
        storing = threading.Timer(0.01, self.store, (result,))
        storing.start()
        assert result.get(timeout=PATIENCE) == result.id
        storing.join()

    def give_up(self) -> None:
        """A result that never comes."""
        with pytest.raises(TimeoutError):
            self.result().get(timeout=random.uniform(0.0, 0.1))

    def once(self) -> None:
        """A look."""
        with pytest.raises(TimeoutError):
            self.result().get(timeout=0)

    def watch(self) -> None:
        """Be called back."""
        result, called = self.result(), threading.Event()
        result.then(lambda _: called.set())
        self.store(result)
        assert called.wait(PATIENCE)

    def drop(self) -> None:
        """Nobody is there any more to be called back."""
        for _ in range(3):
            self.result().then(print)

    def forget(self) -> None:
        """Nobody wants to be called back any more."""
        result = self.result()
        result.then(print)
        result.forget()

    def group(self) -> None:
        """Some that are ready, and some in time."""
        results = [self.result() for _ in range(5)]
        group = self.backend.app.GroupResult("g", results)
        self.store(results[0])
        with pytest.raises(TimeoutError):
            group.get(timeout=0.02)
        for result in results:
            self.store(result)
        assert group.get(timeout=PATIENCE) == [result.id for result in results]


def holdings(database: Database) -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    return {
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "connections": held(database),
    }


@on("postgresql", "mariadb", "sqlite")
def test_nothing_grows(database: Database, backends: Backends, writer: Writer) -> None:
    """Threads, descriptors, connections, what is awaited, and the rows of those who wait."""
    writer.store("warm")
    backend = backends()
    mix, ended = Mix(backend), time.monotonic() + WARM_UP + SECONDS

    def work() -> None:
        while time.monotonic() < ended:
            mix.some()

    with ThreadPoolExecutor(THREADS) as pool:
        working = [pool.submit(work) for _ in range(THREADS)]
        time.sleep(WARM_UP)
        done, before = mix.done, holdings(database)
        time.sleep(SECONDS)
        after = holdings(database)
        for each in working:
            each.result()

    assert mix.done - done > LEEWAY  # or nothing could be seen to grow
    assert {name: number - before[name] > LEEWAY for name, number in after.items()} == dict.fromkeys(after, False)
    gc.collect()
    until(lambda: backend.looker.awaited() == [])
    if database.kind == "postgresql":
        until(lambda: database.execute(ROWS) == [], "the end of the rows")
