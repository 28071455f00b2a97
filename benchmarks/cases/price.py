"""What it costs writers that somebody may wait."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from benchmarks.arena import Arena
from benchmarks.case import RESULT, Benchmark, Play, Round
from benchmarks.contenders import Contender

WRITERS = 32
#: What each writer stores before the clock starts: then its connection is open, its statements are prepared and the
#: tables are not empty any more.
WARM_UP = 20
#: More ids than one writer can store in a round.
IDS = 2_000
#: How many of the tasks somebody waits for.
SHARES = {"1% awaited": 0.01, "all awaited": 1.0}
CHANNEL = "celery_price"


class Price(Benchmark):
    """32 processes store at once: nobody waits, waiting is switched off, or somebody waits for some or all of it."""

    name = "price"
    title = "Store SUCCESS of one task, by 32 processes at once (time for one of all)"
    contenders = ("ours", "waiting off", *SHARES)
    rounds = 2

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """Nothing: each round has a database and processes of its own, since two of these are never quite alike."""
        yield partial(_round, arena, contender)


def _round(arena: Arena, contender: str) -> Round:
    """Let a process fork the writers; it listens where the database notifies."""
    with arena.entry(contender) as entry, arena.player(entry) as player:
        player.do(listen)
        return player.do(store_together, SHARES.get(contender, 0.0), 5 * arena.scale.length)


_listeners: list[Any] = []


def listen(contender: Contender) -> None:
    """Be there to be notified, as a process that waits is."""
    store = contender.app.backend.store
    if store.notifies:
        engine = contender.app.backend.session_manager.get_engine(contender.entry.url, short_lived_sessions=True)
        _listeners.append(store.impl.listener(engine))
        _listeners[-1].open(CHANNEL)


def store_together(contender: Contender, share: float, seconds: float) -> Round:
    """Fork the writers, let them begin together, and return the time for one result of all."""
    context = multiprocessing.get_context("fork")
    lists = [[str(uuid.uuid4()) for _ in range(IDS)] for _ in range(WRITERS)]
    if share:
        wanted = [task_id for ids in lists for task_id in ids[:: int(1 / share)]]
        contender.app.backend.store.await_many(wanted, CHANNEL)
    barrier = context.Barrier(WRITERS)
    pipes = [context.Pipe(duplex=False) for _ in lists]
    writers = [
        context.Process(target=_write, args=(contender, ids, barrier, seconds, theirs), daemon=True)
        for ids, (_, theirs) in zip(lists, pipes, strict=True)
    ]
    for writer in writers:
        writer.start()
    rates = [ours.recv() for ours, _ in pipes]
    for writer in writers:
        writer.join()
    for listener in _listeners:
        listener.received()
    return Round([1 / sum(rates)])


def _write(contender: Contender, ids: list[str], barrier: Barrier, seconds: float, connection: Connection) -> None:
    """Store for some time, and report how many results a second that were."""
    for _ in range(WARM_UP):
        contender.store(str(uuid.uuid4()), RESULT)
    barrier.wait()
    before, begin = len(ids), time.monotonic()
    while ids and time.monotonic() < begin + seconds:
        contender.store(ids.pop(), RESULT)
    connection.send((before - len(ids)) / (time.monotonic() - begin))
