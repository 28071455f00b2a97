"""A host whose clock is two hours ahead: `python -m chords.ahead URL WHAT`, which says what came of it.

Nothing else must have been imported by then, so that whoever asks for the time asks this clock.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

REAL = dt.datetime
HOURS = dt.timedelta(hours=2)


class _Kind(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, REAL)


class Ahead(REAL, metaclass=_Kind):
    """The clock."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        """The time there."""
        return REAL.now(tz) + HOURS


def ahead(url: str, what: str) -> str:
    """Let such a host do something with a database, and return what came of it."""
    command = [sys.executable, "-m", "chords.ahead", url, what]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main(url: str, what: str) -> object:
    """Do it."""
    from support import app_on

    backend = app_on(url, result_expires=3600).backend
    if what == "cleanup":
        return backend.cleanup()
    rows = backend.database.rows.chords
    assert rows is not None
    return rows.claim("g", "ahead", dt.timedelta(seconds=0.2))


if __name__ == "__main__":
    dt.datetime = Ahead  # type: ignore[misc]
    print(main(*sys.argv[1:]))
