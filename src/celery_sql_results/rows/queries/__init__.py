"""Questions of people: what happened, what failed, what is missing, how large. Nothing here writes.

Each is answered in pages that begin where the one before has ended, within a time limit, and without payloads in lists.
"""

from __future__ import annotations

from .arrivals import Arrivals
from .asking import Asked, TooLong, Unanswerable, time_of
from .chords import ChordMember, ChordQuestions, OpenedChord
from .failures import FailureGroup, Failures, Grouped
from .results import Cursor, Filter, Page, Results
from .stats import BY, Figures, Stats
from .trees import Node, Tree, Trees
from .workers import Workers

__all__ = [
    "BY",
    "Arrivals",
    "Asked",
    "ChordMember",
    "ChordQuestions",
    "Cursor",
    "FailureGroup",
    "Failures",
    "Figures",
    "Filter",
    "Grouped",
    "Node",
    "OpenedChord",
    "Page",
    "Results",
    "Stats",
    "TooLong",
    "Tree",
    "Trees",
    "Unanswerable",
    "Workers",
    "time_of",
]
