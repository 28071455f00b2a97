"""How PostgreSQL answers questions of people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from .inspection import schema_of
from .reads import Reads, like_pattern, whole

__all__ = ["PostgreSQLReads"]

#: By the name that leads to the table, as other statements find it.
_SIZES = sa.text("""
SELECT CASE WHEN c.reltuples OPERATOR(pg_catalog.>=) 0 THEN CAST(c.reltuples AS pg_catalog.int8) END AS rows,
    pg_catalog.pg_total_relation_size(c.oid) AS bytes, pg_catalog.pg_indexes_size(c.oid) AS index_bytes,
    pg_catalog.pg_stat_get_dead_tuples(c.oid) AS dead
FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(:name)
""")


class PostgreSQLReads(Reads):
    """A transaction that only reads, so that its limit holds behind a pooler too, and ends with it."""

    def patience(self, url: URL, seconds: float, looks: bool) -> dict[str, Any]:
        """libpq knows a limit for connecting only, pg8000 one for whatever it waits for."""
        if url.get_driver_name() == "pg8000":
            return {"timeout": whole(seconds) + 1} if looks else {}
        return {"connect_timeout": whole(seconds)}

    @contextmanager
    def connect(self, engine: Engine, seconds: float) -> Iterator[Connection]:
        options: dict[str, Any] = {"isolation_level": "READ COMMITTED"}
        with engine.connect().execution_options(**options) as connection, connection.begin():
            limit = f"SET LOCAL statement_timeout = {int(seconds * 1000)}"
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            connection.exec_driver_sql(limit)
            yield connection

    def function(self, name: str) -> Any:
        return getattr(sa.func.pg_catalog, name)

    def like(self, column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
        """Its own operator, by its full name. A backslash escapes."""
        is_like = column.op("OPERATOR(pg_catalog.~~)", is_comparison=True)
        return is_like(sa.cast(like_pattern(pattern, "\\"), sa.Text))

    def seconds(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
        return sa.cast(sa.extract("epoch", later - earlier), sa.Float(53))

    def hour(self, time: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return self.function("to_char")(time, "YYYY-MM-DD HH24", type_=sa.Text)  # type: ignore[no-any-return]

    def sizes(self, connection: Connection, tables: Sequence[sa.Table]) -> list[Mapping[str, Any]]:
        quoted = connection.dialect.identifier_preparer
        found: list[Mapping[str, Any]] = []
        for table in tables:
            name = quoted.format_table(sa.table(table.name, schema=schema_of(connection, table)))
            rows = connection.execute(_SIZES, {"name": name}).mappings()
            found += [{"table": table.name, **row} for row in rows]
        return found
