"""SQLite: files in a folder, and no process."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from servers.base import Server
from servers.process import Home


class SQLite(Server):
    """A folder of database files. There is nothing to kill, no role, and no log; trace statements in the driver."""

    kind = scheme = "sqlite"

    def start(self) -> SQLite:
        """Make the folder."""
        self._home = Home(self.kind, self.account)
        return self

    def restart(self) -> None:
        """Do nothing: the files are there."""

    def mark(self) -> None:
        """Do nothing: there is no log."""

    def path(self, database: str) -> Path:
        """The file of a database."""
        return self.folder / f"{database}.db"

    def url(
        self, database: str, *, user: str | None = None, password: str | None = None, driver: str | None = None
    ) -> str:
        """The SQLAlchemy URL of a database; users do not exist."""
        name = f"{self.scheme}+{driver}" if driver else self.scheme
        return f"{name}:///{self.path(database)}"

    def create_database(self, name: str) -> None:
        """Do nothing: the first connection creates the file."""

    def drop_database(self, name: str) -> None:
        """Remove the file and its journals."""
        for path in self.folder.glob(f"{name}.db*"):
            path.unlink(missing_ok=True)

    def execute(self, sql: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own."""
        where = self.path(database) if database else ":memory:"
        with closing(sqlite3.connect(where, isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()
