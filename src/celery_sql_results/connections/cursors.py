"""Statements on the cursors of drivers that are known to do nothing else than SQLAlchemy lets them do."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["CursorStatements", "of_pymysql", "of_sqlite3"]


class CursorStatements:
    """Runs statements on one connection of a driver, which is in autocommit."""

    runs_in_turn = False

    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor

    def run(self, text: str, names: Sequence[str], values: Mapping[str, Any], has_rows: bool) -> tuple[list[Any], int]:
        """Run a statement that binds its values by their names.

        Return the rows that it has given, and how many it has found or written.

        Raises:
            whatever the driver raises; then the cursor is left to itself, as its connection may be in mid-answer.
        """
        cursor = self._cursor()
        cursor.execute(text, values)
        done = list(cursor.fetchall()) if has_rows else [], cursor.rowcount
        cursor.close()
        return done


def of_sqlite3(connection: Any) -> CursorStatements | None:
    """Those of a connection; ``None`` if it is not one that Python's own driver makes by itself."""
    is_plain = type(connection) is sqlite3.Connection and connection.isolation_level is None
    return CursorStatements(connection) if is_plain else None


def of_pymysql(connection: Any) -> CursorStatements | None:
    """Those of a connection; ``None`` if it is not one that PyMySQL makes by itself."""
    pymysql: Any = sys.modules.get("pymysql")
    is_own = pymysql is not None and type(connection) is pymysql.connections.Connection
    is_plain = is_own and connection.cursorclass is pymysql.cursors.Cursor and connection.get_autocommit()
    return CursorStatements(connection) if is_plain else None
