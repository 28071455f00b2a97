"""The rows of each table: one statement for each question, in one round trip where the database can."""

from __future__ import annotations

from .chords import ADDED, Chord, ChordRows, OpenChord
from .cleanup import delete_chords, delete_results, delete_waiters
from .database import Database, Rows
from .tasks import Columns, Row, TaskRows
from .waiters import WaiterRows

__all__ = [
    "ADDED",
    "Chord",
    "ChordRows",
    "Columns",
    "Database",
    "OpenChord",
    "Row",
    "Rows",
    "TaskRows",
    "WaiterRows",
    "delete_chords",
    "delete_results",
    "delete_waiters",
]
