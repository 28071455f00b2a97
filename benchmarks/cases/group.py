"""Reading the finished results of a large group."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from celery.result import GroupResult

from benchmarks.arena import Arena
from benchmarks.case import RESULT, Benchmark, Play, Round
from benchmarks.cases.store import fill
from benchmarks.contenders import Contender

SIZE = 1000


class Group(Benchmark):
    """`GroupResult.get`, which is `join_native` where the backend has it and `join` elsewhere."""

    name = "group"
    title = f"Read {SIZE:,} finished results at once, in a script or a web process"

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A process that has read one result, so that its connection is open; another one has stored."""
        with arena.entry(contender) as entry:
            with arena.player(entry, forked=True) as writer:
                task_ids = writer.do(fill, SIZE)
            with arena.player(entry) as player:
                player.do(join, task_ids[:1], 0)
                yield partial(player.do, join, task_ids, arena.scale.length)


def join(contender: Contender, task_ids: list[str], seconds: float) -> Round:
    """Join all these results, again and again for some time, at least once; one figure for each time.

    The result objects are made anew each time, since they keep what they have read, and outside of what is timed. They
    are those that the app makes, as `GroupResult.restore` and `apply_async` return them.
    """
    figures: list[float] = []
    while not figures or sum(figures) < seconds:
        assert contender.keeps == 0
        group = group_of(contender, task_ids)
        begin = time.perf_counter()
        found = group.get()
        figures.append(time.perf_counter() - begin)
        assert found == [RESULT] * len(task_ids)
    return Round(figures)


def group_of(contender: Contender, task_ids: list[str]) -> GroupResult:
    """The result of a group of tasks, of which nothing is known."""
    app = contender.app
    return app.GroupResult(str(uuid.uuid4()), [app.AsyncResult(task_id) for task_id in task_ids])
