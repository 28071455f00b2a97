"""What a worker does beside its tasks, and how much time it has left."""

from __future__ import annotations

from .begun import GRACE, seconds_until_killed
from .shutdown import told_to_stop
from .upkeep import Work  # the module listens to the signals of a worker

__all__ = ["GRACE", "Work", "seconds_until_killed", "told_to_stop"]
