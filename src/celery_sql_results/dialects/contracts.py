"""What an impl hands out for waiting: a connection that listens, and a counter of changes."""

from __future__ import annotations

from typing import Protocol

__all__ = ["ChangeCounter", "Listener"]


class ChangeCounter(Protocol):
    """Tells whether the database was written to, on a connection that it holds."""

    def has_changed(self) -> bool:
        """Whether anybody has written since the last call."""

    def close(self) -> None:
        """Let go of the connection."""


class Listener(Protocol):
    """A connection on which notifications arrive."""

    def open(self, channel: str) -> None:
        """Connect, and listen to ``channel``."""

    def fileno(self) -> int:
        """The socket, for ``select``."""

    def received(self) -> list[str]:
        """What has arrived."""

    def close(self) -> None:
        """Close the connection, if it is open."""

    def copy(self) -> Listener:
        """A listener on the same server, not open."""
