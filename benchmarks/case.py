"""What a benchmark is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar

from benchmarks.arena import Arena

#: What is stored: about 100 bytes of JSON.
RESULT = {"order": 48213, "status": "shipped", "weight": 12.75, "parts": [3, 17, 256, 4096], "by": "warehouse 7"}


@dataclass(frozen=True)
class Round:
    """What one contender did in one round: seconds for one operation, one figure or more, and what else it counted."""

    seconds: Sequence[float]
    counts: Mapping[str, int] = field(default_factory=dict)


#: Plays one round.
Play = Callable[[], Round]


class Benchmark(ABC):
    """One benchmark: how a contender prepares for it, and what it does in a round."""

    name: ClassVar[str]
    #: What takes the time that is shown.
    title: ClassVar[str]
    contenders: ClassVar[Sequence[str]] = ("ours", "celery-db", "django", "redis")
    #: How many times as many rounds as usual: for those that measure a single short event.
    rounds: ClassVar[int] = 1

    @abstractmethod
    def prepare(self, arena: Arena, contender: str) -> AbstractContextManager[Play]:
        """Set one contender up, give out what plays a round, and clear away afterwards."""


def repeat(operation: Callable[[], object], seconds: float) -> Round:
    """Repeat an operation for some time, at least once, and measure the mean of one."""
    count, begin = 0, time.perf_counter()
    while True:
        operation()
        count += 1
        taken = time.perf_counter() - begin
        if taken >= seconds:
            return Round([taken / count])
