"""Reading finished results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import ClassVar

from benchmarks.arena import Arena
from benchmarks.case import Benchmark, Play, Round, repeat
from benchmarks.cases.store import fill
from benchmarks.contenders import CONTENDERS, Contender

#: So many results are read in turn.
KEPT = 100


class Read(Benchmark):
    """What one look at a task costs, in a web process or a script."""

    name = "read"
    title = "Read one result, in a script or a web process"
    contenders = tuple(CONTENDERS)
    forked: ClassVar[bool] = False

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A process that has read once, so that its connection is open; another one has stored."""
        with arena.entry(contender) as entry:
            with arena.player(entry, forked=True) as writer:
                task_ids = writer.do(fill, KEPT)
            with arena.player(entry, forked=self.forked) as player:
                player.do(read, task_ids, 0)
                yield partial(player.do, read, task_ids, arena.scale.length)


class ReadForked(Read):
    """The same in a child of a prefork worker, the only place where Celery's own backend pools connections."""

    name = "read-forked"
    title = "Read one result, in a forked child"
    forked = True


def read(contender: Contender, task_ids: list[str], seconds: float) -> Round:
    """Read these results in turn for some time, at least one."""
    in_turn = cycle(task_ids)
    return repeat(lambda: contender.read(next(in_turn)), seconds)
