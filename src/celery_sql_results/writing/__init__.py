"""How an outcome is stored whatever happens: tried again, replaced by what stands for it, or kept on the disk."""

from __future__ import annotations

from .bounded import Late, bounded
from .described import describe
from .entry import CHORD, GROUP, PART, TASK, Entry
from .outage import Outage
from .retry import Retries
from .spool import Directory, Emptier, Replay, Spool
from .still import still
from .verdict import Judge, Verdict
from .writer import StruckMeanwhile, Writer

__all__ = [
    "CHORD",
    "GROUP",
    "PART",
    "TASK",
    "Directory",
    "Emptier",
    "Entry",
    "Judge",
    "Late",
    "Outage",
    "Replay",
    "Retries",
    "Spool",
    "StruckMeanwhile",
    "Verdict",
    "Writer",
    "bounded",
    "describe",
    "still",
]
