"""Chords, done by a real worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

from celery import chord

from benchmarks.arena import Arena
from benchmarks.case import Benchmark, Play, Round
from benchmarks.contenders import Contender
from benchmarks.worker import CHILDREN, client


class Chord10(Benchmark):
    """Header tasks that do nothing, and a body that counts what they returned."""

    name = "chord-10"
    title = f"A chord of 10, from sending it until its result is there; a worker with {CHILDREN} children"
    size: ClassVar[int] = 10
    rounds = 4
    contenders = (*Benchmark.contenders, "ours-unsynced")

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A worker, and a process that has had a task done by it."""
        with client(arena, contender) as player:
            yield partial(player.do, run, self.size)


class Chord1000(Chord10):
    """The same, large."""

    name = "chord-1000"
    title = f"A chord of 1,000, from sending it until its result is there; a worker with {CHILDREN} children"
    size = 1000
    rounds = 1


def run(contender: Contender, size: int) -> Round:
    """Send a chord and wait for its result."""
    echo, count = contender.app.tasks["benchmarks.echo"], contender.app.tasks["benchmarks.count"]
    begin = time.perf_counter()
    found = chord([echo.s(number) for number in range(size)], count.s(), app=contender.app)().get()
    taken = time.perf_counter() - begin
    assert found == size
    return Round([taken])
