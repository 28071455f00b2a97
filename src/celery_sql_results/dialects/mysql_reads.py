"""How MySQL and MariaDB answer questions of people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from celery_sql_results.boundaries import undone

from .inspection import schema_of
from .reads import Reads, like_pattern, whole

__all__ = ["MySQLReads"]

_SIZES = sa.text("""
SELECT table_rows AS `rows`, data_length + index_length AS bytes, index_length AS index_bytes
FROM information_schema.tables WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :name
""")


class MySQLReads(Reads):
    """The limit is a variable of the connection, whose value before is put back."""

    def patience(self, url: URL, seconds: float, looks: bool) -> dict[str, Any]:
        """The server itself ends a statement that takes too long, so an answer has a little longer."""
        return {"connect_timeout": whole(seconds), **({"read_timeout": whole(seconds) + 1} if looks else {})}

    @contextmanager
    def connect(self, engine: Engine, seconds: float) -> Iterator[Connection]:
        with engine.connect() as connection, undone(connection.invalidate):
            # MariaDB counts in seconds, MySQL in milliseconds.
            is_mariadb = getattr(connection.dialect, "is_mariadb", False)
            name, limit = ("max_statement_time", seconds) if is_mariadb else ("max_execution_time", int(seconds * 1000))
            before = connection.exec_driver_sql(f"SELECT @@SESSION.{name}").scalar()
            connection.exec_driver_sql(f"SET SESSION {name} = {limit}")
            connection.exec_driver_sql("START TRANSACTION READ ONLY")
            yield connection
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql(f"SET SESSION {name} = {before}")

    def like(self, column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
        return column.like(like_pattern(pattern, "!"), escape="!")

    def seconds(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
        microseconds = sa.func.timestampdiff(sa.text("MICROSECOND"), earlier, later, type_=sa.Integer)
        return sa.type_coerce(microseconds / sa.literal_column("1e6"), sa.Float)

    def hour(self, time: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.func.date_format(time, "%Y-%m-%d %H", type_=sa.Text)

    def sizes(self, connection: Connection, tables: Sequence[sa.Table]) -> list[Mapping[str, Any]]:
        """What waits to be purged is counted for the whole server, so that dead rows of a table are not known."""
        found: list[Mapping[str, Any]] = []
        for table in tables:
            names = {"schema": schema_of(connection, table), "name": table.name}
            rows = connection.execute(_SIZES, names).mappings()
            found += [
                {"table": table.name, **{each: int(row[each] or 0) for each in row}, "dead": None} for row in rows
            ]
        return found
