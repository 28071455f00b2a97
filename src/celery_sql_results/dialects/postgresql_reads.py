"""How PostgreSQL answers questions of people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .reads import Reads, like_pattern

__all__ = ["PostgreSQLReads"]


class PostgreSQLReads(Reads):
    """A transaction that only reads, so that its limit holds behind a pooler too, and ends with it."""

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
