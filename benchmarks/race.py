"""Contenders take turns, there and back, so that whatever disturbs the machine disturbs them all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.arena import Arena
from benchmarks.case import Benchmark, Play
from benchmarks.player import Failed
from servers import Missing

#: What ends a contender's part in one benchmark, and never the run.
FAILURES = (Failed, Missing, TimeoutError, RuntimeError, OSError)


@dataclass
class Standing:
    """What one contender has shown in one benchmark so far."""

    contender: str
    seconds: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    #: Why it plays no more; empty while all is well.
    failure: str = ""


class Entrant:
    """A contender in one benchmark."""

    def __init__(self, benchmark: Benchmark, arena: Arena, contender: str) -> None:
        self.standing = Standing(contender)
        self._budget = arena.scale.budget
        self._ending = ExitStack()
        self._play: Play | None = None
        with self._failing():
            self._play = self._ending.enter_context(benchmark.prepare(arena, contender))

    def play(self) -> None:
        """Play one round, unless its time is used up."""
        if self._play is None or self._budget <= 0:
            return
        with self._failing():
            begin = time.monotonic()
            done = self._play()
            self._budget -= time.monotonic() - begin
            self.standing.seconds += done.seconds
            self.standing.counts.update(done.counts)

    def leave(self) -> None:
        """End whatever belongs to it."""
        self._play = None
        self._ending.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Note a failure and leave at once: what it has left running must not disturb the others."""
        try:
            yield
        except FAILURES as error:
            self.standing.failure = str(error) or type(error).__name__
            self.leave()


def race(benchmark: Benchmark, arena: Arena, contenders: Sequence[str]) -> list[Standing]:
    """Let contenders take turns in a benchmark, and return what they have shown."""
    entrants: list[Entrant] = []
    with ExitStack() as ending:
        ending.callback(arena.clear)
        for contender in contenders:
            entrants.append(Entrant(benchmark, arena, contender))
            ending.callback(entrants[-1].leave)
        for number in range(arena.scale.rounds * benchmark.rounds):
            for entrant in entrants if number % 2 == 0 else reversed(entrants):
                entrant.play()
    return [entrant.standing for entrant in entrants]
