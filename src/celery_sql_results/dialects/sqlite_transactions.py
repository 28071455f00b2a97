"""What SQLite and its driver know of a transaction of somebody else's."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any

import sqlalchemy as sa

from .transactions import Transactions

__all__ = ["SQLiteTransactions"]

_FILES = sa.text("PRAGMA database_list")


class SQLiteTransactions(Transactions):
    """A database is its file, whatever the path that leads there. One in memory is told from no other."""

    def identity(self, connection: Any, table: sa.Table, name: str) -> Hashable | None:
        files = {found[1]: found[2] for found in connection.execute(_FILES, {})}
        path = files.get(table.schema or "main")
        if not path or not os.path.exists(path):
            return None
        found = os.stat(path)
        return found.st_dev, found.st_ino

    def commits_each(self, driver_connection: Any) -> bool:
        """The driver begins a transaction by itself before a row is written, unless it is told not to."""
        begins = getattr(driver_connection, "isolation_level", None) is not None
        if getattr(driver_connection, "autocommit", None) is False:  # since Python 3.12: always in a transaction
            begins = True
        return not begins and not driver_connection.in_transaction

    def is_open(self, driver_connection: Any) -> bool:
        return bool(driver_connection.in_transaction)
