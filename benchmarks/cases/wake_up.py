"""How soon a waiting process learns of a result."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, NamedTuple

from celery.result import AsyncResult

from benchmarks.arena import Arena
from benchmarks.case import RESULT, Benchmark, Play, Round
from benchmarks.contenders import Contender
from benchmarks.player import Player

#: Seconds that the waiter has waited when the result is stored, at random: one period of Celery's poll of 0.5 s.
PAUSE = (0.1, 0.6)
#: Waits for a result, and returns when it was there.
Wait = Callable[[Contender, str], float]


class Stored(NamedTuple):
    """When the writer called the backend, and when it knew that the result is committed: the same clock for all."""

    called: float
    committed: float


class WakeUp(Benchmark):
    """A writer stores while a waiter sits in `AsyncResult.get`; both are like a script or a web process."""

    name = "wake-up"
    title = "From the commit in another process until AsyncResult.get() has returned"
    rounds = 4
    #: Which moment of the writer's counts.
    since: ClassVar[str] = "committed"

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A writer and a waiter that have met once, so that their connections are open."""
        with arena.entry(contender) as entry, arena.player(entry) as writer, arena.player(entry) as waiter:
            writer.do(watch)
            _once(writer, waiter)
            yield partial(self._round, writer, waiter)

    def _round(self, writer: Player, waiter: Player, waits: Wait | None = None) -> Round:
        stored, woken = _once(writer, waiter, waits)
        return Round([woken - getattr(stored, self.since)])


class WakeUpWithStore(WakeUp):
    """The same with the time that storing takes, for which no look into the writer is needed."""

    name = "wake-up+store"
    title = "From the call of store_result in another process until AsyncResult.get() has returned"
    since = "called"


def _once(writer: Player, waiter: Player, waits: Wait | None = None) -> tuple[Stored, float]:
    task_id = str(uuid.uuid4())
    waiter.begin(waits or wait, task_id)
    stored = writer.do(store_later, task_id, random.uniform(*PAUSE))
    return stored, waiter.end()


def wait(contender: Contender, task_id: str) -> float:
    """Wait for a result, and return when it was there."""
    AsyncResult(task_id, app=contender.app).get()
    return time.monotonic()


_commits: list[float] = []


def watch(contender: Contender) -> None:
    """Note when the database replies that it has committed."""
    contender.watch_commits(lambda: _commits.append(time.monotonic()))


def store_later(contender: Contender, task_id: str, pause: float) -> Stored:
    """Store a result after a pause."""
    time.sleep(pause)
    _commits.clear()
    called = time.monotonic()
    contender.store(task_id, RESULT)
    return Stored(called, (_commits or [time.monotonic()])[0])
