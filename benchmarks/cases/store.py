"""Storing results under new ids."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

from celery import states

from benchmarks.arena import Arena
from benchmarks.case import RESULT, Benchmark, Play, Round, repeat
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.writers import new_ids, store_at_once


class Store(Benchmark):
    """One finished state for each task."""

    name = "store"
    title = "Store SUCCESS of one task, in a script or a web process"
    contenders = (*CONTENDERS, "redis-disk", "ours-unsynced")
    forked: ClassVar[bool] = False
    states: ClassVar[tuple[str, ...]] = (states.SUCCESS,)

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A process that has stored once, so that its connection is open."""
        with arena.entry(contender) as entry, arena.player(entry, forked=self.forked) as player:
            player.do(store, self.states, 0)
            yield partial(player.do, store, self.states, arena.scale.length)


class StoreForked(Store):
    """The same where most results are stored: in a child of a prefork worker, the only place where Celery's pools."""

    name = "store-forked"
    title = "Store SUCCESS of one task, in a forked child"
    forked = True


class StoreTwice(Store):
    """What a worker stores with task_track_started."""

    name = "store2"
    title = "Store STARTED, then SUCCESS of one task, in a script or a web process"
    states = (states.STARTED, states.SUCCESS)


class StoreTwiceForked(StoreTwice):
    """The same in a child of a prefork worker."""

    name = "store2-forked"
    title = "Store STARTED, then SUCCESS of one task, in a forked child"
    forked = True


class StoreBy2(Benchmark):
    """What the children of a busy worker do: they share the processors, and the disk."""

    name = "store-by-2"
    title = "Store SUCCESS of one task, by 2 forked children at once (time for one of all)"
    contenders = tuple(contender for contender in Store.contenders if contender != "bare")
    writers: ClassVar[int] = 2

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A process that has connected to nothing; it forks new writers for each round."""
        with arena.entry(contender) as entry, arena.player(entry) as player:
            yield partial(player.do, store_together, self.writers, 5 * arena.scale.length)


class StoreBy8(StoreBy2):
    """The same for some more, of which one sync of the disk serves several."""

    name = "store-by-8"
    title = "Store SUCCESS of one task, by 8 forked children at once (time for one of all)"
    writers = 8


class StoreBy32(StoreBy2):
    """The same for many."""

    name = "store-by-32"
    title = "Store SUCCESS of one task, by 32 forked children at once (time for one of all)"
    writers = 32


def store(contender: Contender, in_turn: tuple[str, ...], seconds: float) -> Round:
    """Store results under new ids for some time, at least one."""

    def one() -> None:
        task_id = str(uuid.uuid4())
        for state in in_turn:
            contender.store(task_id, RESULT, state)

    return repeat(one, seconds)


def store_together(contender: Contender, writers: int, seconds: float) -> Round:
    """Store results under new ids for some time, by so many children; the backend is made before they are forked."""
    contender.open()
    return store_at_once(contender, [new_ids() for _ in range(writers)], seconds)


def fill(contender: Contender, count: int) -> list[str]:
    """Store as many results, and return their ids."""
    task_ids = [str(uuid.uuid4()) for _ in range(count)]
    for task_id in task_ids:
        contender.store(task_id, RESULT)
    return task_ids
