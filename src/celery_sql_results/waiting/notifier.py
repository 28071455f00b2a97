"""The contract between who looks and who listens: a hint says what is worth a look."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

__all__ = ["Ears", "MakeNotifier", "Notifier"]


class Ears(Protocol):
    """Whoever is told. Each method may be called from any thread, and may ask the database."""

    @property
    def is_needed(self) -> bool:
        """Whether anybody waits just now."""

    def heard(self, task_ids: Collection[str]) -> None:
        """These tasks have changed, or others that nobody here knows: a hint is only a hint."""

    def changed(self) -> None:
        """Some rows have changed, nobody knows which."""

    def tuned(self) -> None:
        """:attr:`Notifier.hears` has changed. What happened before was not made known."""


class Notifier(Protocol):
    """Listens, in a thread of its own, and tells its :class:`Ears`. Nobody waits for it.

    Attributes:
        hears: whether changes are made known just now, so that looking by oneself is only a safety net.
        is_hopeful: whether it is worth to leave rows of waiters.
        tells_which: whether it tells which tasks have changed.
    """

    hears: bool
    is_hopeful: bool
    tells_which: bool

    def start(self) -> None:
        """Begin to listen.

        Raises:
            RuntimeError: the system has no thread to spare.
        """

    def wake(self) -> None:
        """Somebody has just begun to wait."""

    def end(self) -> None:
        """Let go of everything, soon: nobody waits for that."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until everything was let go of."""

    def before_fork(self) -> None:
        """Let go of what a child must not inherit."""

    def after_fork(self) -> None:
        """Go on, in the parent. The child makes another."""


#: Makes what listens for somebody, on a channel of his.
MakeNotifier = Callable[[Ears, str], Notifier]
