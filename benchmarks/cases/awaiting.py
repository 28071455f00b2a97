"""How soon a coroutine learns of a result, beside a thread that sits in `get()`, and what a thousand waits hold."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.arena import Arena
from benchmarks.case import RESULT, Benchmark, Play, Round
from benchmarks.cases.wake_up import WakeUp, _once, wait, watch
from benchmarks.contenders import Contender
from benchmarks.player import Player

#: Waits at once.
WAITS = 1000


class Await(WakeUp):
    """A writer stores while a waiter awaits the result, or sits in `AsyncResult.get`; both in turn."""

    name = "await"
    title = "From the commit in another process until `await result` goes on, beside AsyncResult.get()"
    contenders = ("ours", "await")

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A writer and a waiter that have met once, so that their connections are open."""
        waits = wait_in_a_loop if contender == "await" else wait
        with arena.entry(contender) as entry, arena.player(entry) as writer, arena.player(entry) as waiter:
            writer.do(watch)
            _once(writer, waiter, waits)
            yield partial(self._round, writer, waiter, waits)


class Await1000(Benchmark):
    """A thousand coroutines wait, and another process stores all results."""

    name = "await-1000"
    title = f"One of {WAITS} results that {WAITS} coroutines await, from the first store until all have it"
    contenders = ("await",)

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A writer and a waiter; what the latter holds while all wait is counted once."""
        counted: list[bool] = []
        with arena.entry(contender) as entry, arena.player(entry) as writer, arena.player(entry) as waiter:
            writer.do(Contender.store, "warm", RESULT)
            yield partial(self._round, writer, waiter, counted)

    def _round(self, writer: Player, waiter: Player, counted: list[bool]) -> Round:
        ids = [str(uuid.uuid4()) for _ in range(WAITS)]
        waiter.begin(wait_for_all, ids)
        writer.do(store_all, ids)
        seconds, held = waiter.end()
        first, counted[:] = not counted, [True]
        return Round([seconds / WAITS], held if first else {})


def wait_in_a_loop(contender: Contender, task_id: str) -> float:
    """Await a result, and return when it was there."""

    async def main() -> float:
        await contender.app.AsyncResult(task_id)
        return time.monotonic()

    contender.open()
    return asyncio.run(main())


def store_all(contender: Contender, ids: list[str]) -> None:
    """Store results a little later: all are awaited then."""
    time.sleep(0.5)
    for task_id in ids:
        contender.store(task_id, RESULT)


def wait_for_all(contender: Contender, ids: list[str]) -> tuple[float, dict[str, int]]:
    """Seconds from the first result to the last, and what this process held in between."""
    contender.open()
    return asyncio.run(_wait_for_all(contender.app, ids))


async def _wait_for_all(app: Any, ids: list[str]) -> tuple[float, dict[str, int]]:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    arrived: list[float] = []

    async def one(task_id: str) -> None:
        await app.AsyncResult(task_id)
        arrived.append(time.monotonic())

    tasks = [asyncio.ensure_future(one(task_id)) for task_id in ids]
    turns: list[float] = []
    while not all(task.done() for task in tasks):
        began = time.thread_time()
        await asyncio.sleep(0)
        turns.append(time.thread_time() - began)
        held = {"threads": threading.active_count() - threads, "files": len(os.listdir("/proc/self/fd")) - files}
        await asyncio.sleep(0.001 if len(arrived) else 0.01)
    return arrived[-1] - arrived[0], {**held, "busiest turn of the loop (µs)": round(max(turns) * 1e6)}
