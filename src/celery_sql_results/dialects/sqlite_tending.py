"""What is to be said of how SQLite is set up: little, a file is all there is."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .tending import Tending, Unfit

__all__ = ["SQLiteTending"]


class SQLiteTending(Tending):
    """It knows neither roles nor types that matter, and has the clock of this host."""

    least = (3, 24)
    is_always_strict = True
    without_roles = (
        "SQLite knows no roles: whoever may read and write the file, and create others in its directory, may do "
        "everything (chown, chmod)"
    )

    def largest_id(self, connection: Connection, table: sa.Table) -> int | None:
        """Each id has 64 bits, whatever the column is called."""
        return None

    def unfit(self, connection: Connection, table: sa.Table) -> Iterator[Unfit]:
        """A column takes whatever is put into it."""
        yield from ()
