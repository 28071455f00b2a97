"""Which waits are looked for next: each is due at times of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from math import frexp, ldexp

from .subscription import Subscription

__all__ = ["OUTAGE_PAUSE", "Schedule"]

#: A pause between two looks is this part of the age of the wait: what was awaited for a second is known 50 ms late at
#: most, and the looks are few, because their number grows with the logarithm of the time.
FRACTION = 0.05
#: Where changes are made known, looks are for the one that was missed, or that Celery's own backend wrote without a
#: word: a quarter of the age later, and a second at most.
SAFETY_FRACTION, FIRST_SAFETY, LAST_SAFETY = 0.25, 0.01, 1.0
#: Looks that take long are not repeated at once: the database rests this many times as long; where any change of the
#: database asks for one, longer, unless the last of them has found something.
REST, REST_IN_VAIN, REST_OF_CHANGES = 2.0, 9.0, 1.0
#: Seconds of rest at most.
LONGEST_REST = 1.0
#: Seconds between two looks for the same wait while the database cannot be reached.
OUTAGE_PAUSE = 0.5
#: Ids that one look asks for at most, unless a single wait has more: so it takes a few milliseconds, and however many
#: waits are due, a young one is not behind all of them.
MOST_IDS = 250

Entry = tuple[float, int, Subscription]


class Schedule:
    """The waits by the time at which they are due. Whoever uses it holds a lock.

    Those with pauses of about the same length are looked for together when the first of them is due: one query serves
    many. But a look for young waits, which is one of many, asks for no old ones.

    Args:
        first_pause: shortest pause between two looks, in seconds.
        last_pause: longest pause, where changes are not made known.
    """

    def __init__(self, first_pause: float, last_pause: float) -> None:
        self._first_pause, self._last_pause = first_pause, last_pause
        #: By the binary logarithm of their pause. An entry counts as long as its wait is still due at its time.
        self._due: dict[int, list[Entry]] = {}
        self._numbers = count()
        #: Those that any change of the database makes due earlier.
        self._quiet: set[Subscription] = set()
        #: What all looks have taken so far, in seconds, and how many changes of the database are known.
        self.spent, self._changes = 0.0, 0

    def begin(self, wait: Subscription) -> None:
        """A wait begins, with a look."""
        wait.spent = self.spent
        self.note(wait)

    def note(self, *waits: Subscription) -> None:
        """A look for some waits begins."""
        for wait in waits:
            wait.changes = self._changes

    def plan(self, wait: Subscription, is_told: bool, tells_which: bool) -> None:
        """A look is over: the next is soon for a young wait, later as it ages, and not before the database has rested.

        ``is_told`` says whether changes of its tasks are made known, and ``tells_which`` whether of them alone.
        """
        now = time.monotonic()
        wait.looked, age = now, now - wait.since
        wait.cost, wait.spent = self.spent - wait.spent, self.spent
        rest = REST_OF_CHANGES if len(wait.missing) < wait.missed else REST_IN_VAIN
        wait.rest, wait.missed = min(wait.cost * rest, self._last_pause), len(wait.missing)
        if not is_told:
            pace, longest = max(age * FRACTION, self._first_pause), self._last_pause
        elif not tells_which and wait.changes != self._changes:
            pace, longest = wait.rest, wait.rest
        else:
            pace, longest = max(age * SAFETY_FRACTION, FIRST_SAFETY), LAST_SAFETY
            if not tells_which:
                self._quiet.add(wait)
        wait.pause = max(min(pace, longest), min(wait.cost * REST, LONGEST_REST))
        self._put(wait, now + wait.pause)

    def plan_now(self, wait: Subscription) -> None:
        """A wait begins, and nothing was looked for."""
        wait.pause = self._first_pause
        self._put(wait, time.monotonic())

    def plan_again(self, wait: Subscription) -> None:
        """A look has failed, and may succeed later."""
        wait.pause = OUTAGE_PAUSE
        self._put(wait, time.monotonic() + OUTAGE_PAUSE)

    def _put(self, wait: Subscription, due: float) -> None:
        wait.due = due
        heappush(self._due.setdefault(frexp(wait.pause)[1], []), (due, next(self._numbers), wait))

    def drop(self, wait: Subscription) -> None:
        """A wait has ended."""
        self._quiet.discard(wait)

    def changed(self) -> None:
        """The database has: look again for what rests, as soon as it has rested."""
        self._changes += 1
        quiet, self._quiet = self._quiet, set()
        now = time.monotonic()
        for wait in quiet:
            soon = max(now, wait.looked + wait.rest)
            if soon < wait.due < math.inf:
                wait.pause = wait.rest
                self._put(wait, soon)

    def hasten(self, waits: Iterable[Subscription]) -> None:
        """Look for these now, unless that is just being done."""
        now = time.monotonic()
        for wait in waits:
            if wait.due < math.inf:
                self._put(wait, now)

    def take(self) -> list[Subscription]:
        """Those that are looked for together now; they are due no more."""
        now = time.monotonic()
        # Those who look often come first, but nobody is last for ever.
        late = [(due[0][0] + ldexp(1.0, level), level) for level, due in self._heads() if due[0][0] <= now]
        return self._take(self._due[min(late)[1]]) if late else []

    def _take(self, due: list[Entry]) -> list[Subscription]:
        taken: list[Subscription] = []
        room = MOST_IDS
        while due:
            time_, _, wait = due[0]
            if _counts(wait, time_):
                room -= len(wait.missing)
                if taken and room < 0:
                    break
                wait.due = math.inf
                taken.append(wait)
            heappop(due)
        return taken

    def next(self) -> float:
        """When the next wait is due."""
        return min((due[0][0] for _, due in self._heads()), default=math.inf)

    def _heads(self) -> Iterator[tuple[int, list[Entry]]]:
        for level, due in self._due.items():
            while due and not _counts(due[0][2], due[0][0]):
                heappop(due)
            if due:
                yield level, due


def _counts(wait: Subscription, due: float) -> bool:
    return wait.due == due and not wait.has_ended
