"""Many processes meet on an empty database."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from benchmarks.arena import Arena
from benchmarks.case import RESULT, Benchmark, Play, Round
from benchmarks.contenders import Contender
from benchmarks.player import end_with_parent

PROCESSES = 50


class FirstUse(Benchmark):
    """All begin at the same moment, each without a connection. Django's tables are there, its users run `migrate`."""

    name = "first-use"
    title = f"{PROCESSES} processes on an empty database, until each has stored one result"

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """Nothing: each round has an empty database of its own."""
        yield partial(_round, arena, contender)


def _round(arena: Arena, contender: str) -> Round:
    with arena.entry(contender) as entry, arena.player(entry) as player:
        return player.do(meet)


def meet(contender: Contender) -> Round:
    """Fork processes that have loaded the backend and not touched it, start them together, and wait for all."""
    contender.load()
    context = multiprocessing.get_context("fork")
    start, outcomes = context.Barrier(PROCESSES + 1), context.SimpleQueue()
    for _ in range(PROCESSES):
        context.Process(target=_arrive, args=(contender, start, outcomes), daemon=True).start()
    start.wait()
    begin = time.perf_counter()
    done = [outcomes.get() for _ in range(PROCESSES)]
    taken = time.perf_counter() - begin
    return Round([taken], {"errors": sum(errors for errors, _ in done), "not stored": sum(lost for _, lost in done)})


def _arrive(contender: Contender, start: Any, outcomes: Any) -> None:
    """Store one result; report the errors of the database, also those that were retried, and whether it is lost."""
    end_with_parent()
    errors: list[ExceptionContext] = []
    event.listen(Engine, "handle_error", errors.append)
    start.wait()
    try:
        contender.store(str(uuid.uuid4()), RESULT)
    except Exception:  # noqa: BLE001 - whatever it is, the result is lost
        outcomes.put((max(_real(errors), 1), True))
    else:
        outcomes.put((_real(errors), False))


def _real(errors: list[ExceptionContext]) -> int:
    """How many there are. SQLAlchemy asks MySQL whether a table exists by describing it: that failure is an answer."""
    return sum(not (error.statement or "").startswith("DESCRIBE") for error in errors)
