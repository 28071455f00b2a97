"""``celery results …`` and ``celery-sql-results …``: see and tend the results from a terminal.

Each ``celery`` command imports this for the names of ours, so it imports nothing but click: see :mod:`.group`.
"""

from __future__ import annotations

from .group import results
from .program import main

__all__ = ["main", "results"]
