"""Tasks that somebody waits for, done by a real worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.arena import Arena
from benchmarks.case import Benchmark, Play, Round
from benchmarks.contenders import Contender
from benchmarks.worker import CHILDREN, client

#: So many tasks are sent at once.
TASKS = 200


class Throughput(Benchmark):
    """Tasks that do nothing."""

    name = "throughput"
    title = f"One of {TASKS} tasks, sent one by one and awaited one by one; a worker with {CHILDREN} children"

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A worker, and a process that has had a task done by it."""
        with client(arena, contender) as player:
            yield partial(player.do, run)


def run(contender: Contender) -> Round:
    """Send the tasks and wait for each."""
    echo = contender.app.tasks["benchmarks.echo"]
    begin = time.perf_counter()
    found = [result.get() for result in [echo.delay(number) for number in range(TASKS)]]
    taken = time.perf_counter() - begin
    assert found == list(range(TASKS))
    return Round([taken / TASKS])
