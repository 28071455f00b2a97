"""What a worker does beside its tasks, and how much time it has left."""

from __future__ import annotations

from . import brief, upkeep  # they listen to what a worker logs, and to its signals
from .begun import GRACE, began_at, seconds_until_killed
from .shutdown import told_to_stop

__all__ = ["GRACE", "began_at", "brief", "seconds_until_killed", "told_to_stop", "upkeep"]
