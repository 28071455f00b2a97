"""What a worker does beside its tasks, and how much time it has left."""

from __future__ import annotations

from . import upkeep  # it listens to the signals of a worker
from .begun import GRACE, began_at, seconds_until_killed
from .shutdown import told_to_stop

__all__ = ["GRACE", "began_at", "seconds_until_killed", "told_to_stop", "upkeep"]
