"""What is awaited in a process, by whom, and which rows of waiters were left for that."""

from __future__ import annotations

import time
from collections.abc import Collection

from .subscription import Row, Subscription

__all__ = ["Awaited"]

#: Seconds after a wait in which its rows of waiters stay: whoever waits again and again, each time for a short while,
#: leaves them once.
KEPT = 1.0


class Awaited:
    """The waits, by their ids. Whoever uses it holds a lock, but for :attr:`waits`."""

    def __init__(self) -> None:
        self.waits: set[Subscription] = set()
        self._by_id: dict[str, set[Subscription]] = {}
        #: The ids of waits that have ended whose rows of waiters may be there, and until when they stay.
        self._left: dict[str, float] = {}

    def add(self, wait: Subscription) -> None:
        """It begins."""
        self.waits.add(wait)
        for task_id in wait.task_ids:
            self._by_id.setdefault(task_id, set()).add(wait)

    def remove(self, wait: Subscription) -> None:
        """It has ended, or may never have begun."""
        if wait not in self.waits:
            return
        self.waits.discard(wait)
        for task_id in wait.task_ids:
            waits = self._by_id.get(task_id, set())
            waits.discard(wait)
            if not waits:
                self._by_id.pop(task_id, None)
        self.keep(wait)

    def keep(self, wait: Subscription) -> None:
        """The rows of waiters that a wait has left stay for a while."""
        until = time.monotonic() + KEPT
        for task_id in wait.left:
            self._left.pop(task_id, None)  # so that they are in the order of time
            self._left[task_id] = until

    def of(self, task_id: str) -> Collection[Subscription]:
        """The waits for a task."""
        return self._by_id.get(task_id, ())

    def offers(self, rows: Collection[Row]) -> dict[Subscription, list[Row]]:
        """Who is offered what."""
        found: dict[Subscription, list[Row]] = {}
        for row in rows:
            for wait in self.of(row["task_id"]):
                found.setdefault(wait, []).append(row)
        return found

    def told(self, task_ids: Collection[str]) -> dict[str, list[Subscription]]:
        """Of tasks that writers have told us of: those that are missed, and by whom. Their rows of waiters are gone."""
        missed = {}
        for task_id in set(task_ids):
            self._left.pop(task_id, None)
            waits = [wait for wait in self.of(task_id) if task_id in wait.missing]
            if waits:
                missed[task_id] = waits
        return missed

    @property
    def next(self) -> float | None:
        """When the next rows of waiters are to be withdrawn."""
        return next(iter(self._left.values()), None)

    def take_left(self, until: float) -> list[str]:
        """The ids whose rows of waiters have stayed long enough."""
        late = []
        while self._left and (self.next or 0.0) <= until:
            task_id = next(iter(self._left))
            del self._left[task_id]
            if not any(task_id in wait.left for wait in self.of(task_id)):
                late.append(task_id)
        return late
