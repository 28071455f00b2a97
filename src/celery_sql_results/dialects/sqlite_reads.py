"""How SQLite answers questions of people."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .reads import Reads

__all__ = ["SQLiteReads"]

#: Steps of its virtual machine between two looks at the clock: some tenths of a millisecond.
STEPS = 10_000
#: Bytes of a payload of which the beginning is read.
LARGEST = 10_000_000

#: The pages of a table and of its indexes, where SQLite was built with this: https://www.sqlite.org/dbstat.html
_KNOWS_SIZES = sa.text("SELECT 1 FROM pragma_module_list WHERE name = 'dbstat'")
_SIZES = sa.text("""
SELECT SUM(s.pgsize) AS bytes, SUM(CASE WHEN m.type = 'index' THEN s.pgsize ELSE 0 END) AS index_bytes
FROM dbstat s JOIN sqlite_master m ON m.name = s.name WHERE s.aggregate = TRUE AND m.tbl_name = :name
""")
#: All of the file.
_FILE = sa.text("SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size")


class SQLiteReads(Reads):
    """It calls back now and then, and lets itself be interrupted: https://www.sqlite.org/c3ref/progress_handler.html"""

    never = sa.literal_column("'1970-01-01 00:00:00.000000'", sa.DateTime())

    @contextmanager
    def connect(self, engine: Engine, seconds: float) -> Iterator[Connection]:
        with engine.connect() as connection:
            deadline = 0.0

            def begin(*_: object) -> None:
                nonlocal deadline
                deadline = time.monotonic() + seconds

            driver: Any = connection.connection.driver_connection
            sa.event.listen(connection, "before_cursor_execute", begin)
            connection.exec_driver_sql("PRAGMA query_only = ON")
            driver.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
            try:
                yield connection
            finally:
                driver.set_progress_handler(None, 0)
                connection.exec_driver_sql("PRAGMA query_only = OFF")

    def like(self, column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
        """Its ``GLOB`` tells upper from lower case, which its ``LIKE`` does not. A bracket means itself."""
        return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))

    def head(self, column: sa.ColumnElement[bytes], size: int) -> sa.ColumnElement[bytes]:
        """Of whatever is there: its columns hold anything. To cut a payload, it would read all of it into memory."""
        is_small = sa.func.length(column, type_=sa.Integer) <= sa.literal_column(str(LARGEST))
        beginning = sa.case((is_small, sa.func.substr(column, 1, size)), (column.is_not(None), ""))
        return sa.cast(beginning, sa.LargeBinary)

    def tail(self, column: sa.ColumnElement[str], size: int) -> sa.ColumnElement[str]:
        return sa.func.substr(column, -size, type_=sa.Text)

    def seconds(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
        day: sa.ColumnElement[float] = sa.literal_column("86400.0")
        return (sa.func.julianday(later, type_=sa.Float) - sa.func.julianday(earlier, type_=sa.Float)) * day

    def hour(self, time: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.func.strftime("%Y-%m-%d %H", time, type_=sa.Text)

    def sizes(self, connection: Connection, tables: Sequence[sa.Table]) -> list[Mapping[str, Any]]:
        """The file last; alone, where SQLite tells of no table. Rows it would have to count."""
        unknown = {"rows": None, "index_bytes": None, "dead": None}
        whole = {"table": "(the file)", **unknown, "bytes": connection.execute(_FILE).scalar()}
        if connection.execute(_KNOWS_SIZES).first() is None:
            return [whole]
        found: list[Mapping[str, Any]] = []
        for table in tables:
            row = connection.execute(_SIZES, {"name": table.name}).mappings().one()
            found.append({"table": table.name, **unknown, **row})
        return [*found, whole]
