"""The rows of each table: one statement for each question, in one round trip where the database can."""

from __future__ import annotations

from .chords import ADDED, Chord, ChordRows, OpenChord
from .cleanup import delete_chords, delete_results, delete_waiters
from .database import Database, Rows
from .lost import Lost, LostRows, Suspect
from .tasks import Columns, Row, TaskRows
from .waiters import WaiterRows
from .workers import GONE_AFTER, WorkerRows

__all__ = [
    "ADDED",
    "GONE_AFTER",
    "Chord",
    "ChordRows",
    "Columns",
    "Database",
    "Lost",
    "LostRows",
    "OpenChord",
    "Row",
    "Rows",
    "Suspect",
    "TaskRows",
    "WaiterRows",
    "WorkerRows",
    "delete_chords",
    "delete_results",
    "delete_waiters",
]
