"""Reading the finished results of a large group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from celery.result import AsyncResult, ResultSet

from benchmarks.arena import Arena
from benchmarks.case import Benchmark, Play, Round, repeat
from benchmarks.cases.store import fill
from benchmarks.contenders import Contender

SIZE = 1000


class Group(Benchmark):
    """`ResultSet.get`, which is `join_native` where the backend has it and `join` elsewhere."""

    name = "group"
    title = f"Read {SIZE:,} finished results at once, in a process that was not forked"

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
    """Join all these results, again and again for some time, at least once."""

    def one() -> None:
        found = ResultSet([AsyncResult(task_id, app=contender.app) for task_id in task_ids], app=contender.app).get()
        assert len(found) == len(task_ids)

    return repeat(one, seconds)
