"""What waits on the disk until the database can take it."""

from __future__ import annotations

from .directory import Directory
from .emptying import Emptier
from .files import Unreadable, loads
from .replay import Replay
from .spool import Spool

__all__ = ["Directory", "Emptier", "Replay", "Spool", "Unreadable", "loads"]
