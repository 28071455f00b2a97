"""What a worker does beside its tasks, and how much time it has left."""

from __future__ import annotations

from . import brief  # it listens to what a worker logs
from .alive import Heart, Told
from .at_start import AtStart
from .begun import GRACE, began_at, seconds_until_killed
from .lost import LostTasks
from .shutdown import told_to_stop
from .upkeep import Work  # the module listens to the signals of a worker
from .who import who

__all__ = [
    "GRACE",
    "AtStart",
    "Heart",
    "LostTasks",
    "Told",
    "Work",
    "began_at",
    "brief",
    "seconds_until_killed",
    "told_to_stop",
    "who",
]
