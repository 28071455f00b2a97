"""Is everything as it should be? A worker asks some of it at its start, and ``check`` all of it."""

from __future__ import annotations

from .finding import Finding, Level
from .ids import ids
from .notifications import POLLED, notifications
from .server import clock, connections, isolation, server
from .spools import spools
from .tables import bloat, columns, expired, indexes, rights, strange, tables, version

__all__ = [
    "POLLED",
    "Finding",
    "Level",
    "bloat",
    "clock",
    "columns",
    "connections",
    "expired",
    "ids",
    "indexes",
    "isolation",
    "notifications",
    "rights",
    "server",
    "spools",
    "strange",
    "tables",
    "version",
]
