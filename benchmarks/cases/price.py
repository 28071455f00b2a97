"""What it costs writers that somebody may wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from benchmarks.arena import Arena
from benchmarks.case import Benchmark, Play, Round
from benchmarks.contenders import Contender
from benchmarks.writers import new_ids, store_at_once

WRITERS = 32
#: More than one writer can store in a round.
IDS = 2_000
#: How many of the tasks somebody waits for.
SHARES = {"1% awaited": 0.01, "all awaited": 1.0}
CHANNEL = "celery_price"


class Price(Benchmark):
    """32 processes store at once: nobody waits, waiting is switched off, or somebody waits for some or all of it."""

    name = "price"
    title = f"Store SUCCESS of one task, by {WRITERS} processes at once (time for one of all)"
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
        return player.do(store_awaited, SHARES.get(contender, 0.0), 5 * arena.scale.length)


_listeners: list[Any] = []


def listen(contender: Contender) -> None:
    """Be there to be notified, as a process that waits is."""
    database = contender.app.backend.database
    if database.rows.waiters is not None:
        engine = contender.app.backend.session_manager.get_engine(contender.entry.url, short_lived_sessions=True)
        _listeners.append(database.impl.listener(engine))
        _listeners[-1].open(CHANNEL)


def store_awaited(contender: Contender, share: float, seconds: float) -> Round:
    """Let the writers store, while somebody waits for that share of the tasks."""
    lists = [list(islice(new_ids(), IDS)) for _ in range(WRITERS)]
    if share:
        wanted = [task_id for ids in lists for task_id in ids[:: int(1 / share)]]
        contender.app.backend.database.rows.waiters.await_many(wanted, CHANNEL)
    taken = store_at_once(contender, lists, seconds)
    for listener in _listeners:
        listener.received()
    return taken
