"""The contract of a way to wait: when is it worth looking at the rows again?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

__all__ = ["Notifier", "Row"]

Row = Mapping[str, Any]


class Notifier(Protocol):
    """Says when to look. One thread waits; any thread may add, remove and interrupt."""

    def add(self, task_ids: Collection[str]) -> list[Row]:
        """Begin to watch tasks, then return the rows that they have: in this order nothing is missed for long."""

    def fetch(self, task_ids: Collection[str]) -> list[Row]:
        """Return the rows that tasks have."""

    def remove(self, task_ids: Collection[str], unfinished: Collection[str]) -> None:
        """Stop to watch tasks; ``unfinished`` are those among them that may still change."""

    def wait(self, longest: float) -> Collection[str] | None:
        """Wait until there is something to look at, but not more than ``longest`` seconds.

        Return the ids to look at: none after :meth:`interrupt`; ``None`` stands for all, also when the time is over.
        """

    def tells(self, task_ids: Collection[str]) -> bool:
        """Whether changes of these tasks are made known, so that looking by oneself is only a safety net."""

    def interrupt(self) -> None:
        """Let the thread that waits return at once."""

    def close(self) -> None:
        """Let go of connections, until the next :meth:`wait`."""

    def before_fork(self) -> None:
        """Let go of what a child must not inherit."""

    def after_fork(self, in_child: bool) -> None:
        """Go on; in the child, leave all connections to the parent."""
