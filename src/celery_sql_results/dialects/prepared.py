"""Statements that stay prepared on a connection of psycopg 3, and run without its cursor.

A cursor looks at statement and values anew each time, which takes nearly as long as the server needs to store a
result. Here that is done once for each connection. psycopg's own adapters turn the values into what is sent, and back,
and its own wait lets signals and other greenlets run meanwhile.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

__all__ = ["PreparedStatements", "statements_of"]

#: Under what an entry of the pool keeps the statements of its connection.
STATEMENTS = "celery_sql_results.statements"
#: SQLSTATEs of a statement that the server does not have any more as it was prepared: a column has another type since,
#: or somebody deallocated it. Nothing was done then.
OUTDATED = ("0A000", "26000")


class Ran(NamedTuple):
    """The rows that a statement has given, and how many it has found or written."""

    rows: list[Any]
    rowcount: int


class PreparedStatements:
    """The statements of one connection that run again and again.

    Args:
        connection: a connection of psycopg 3 in autocommit. As its ``prepare_threshold`` says, a statement is prepared
            when it has run so often, or never.
    """

    def __init__(self, connection: Any) -> None:
        import psycopg  # there, since the connection is one of it
        from psycopg import generators

        self._connection, self._server, self._driver = connection, connection.pgconn, psycopg
        self._answers = generators.execute
        self._adapters = psycopg.adapt.Transformer(connection)
        self._text, self._binary = psycopg.adapt.PyFormat.TEXT, psycopg.adapt.PyFormat.BINARY
        threshold = connection.prepare_threshold
        self._threshold = math.inf if threshold is None else threshold
        self._runs: Counter[str] = Counter()
        self._names: dict[str, bytes] = {}
        self._numbers = count(1)

    def run(self, text: str, names: Sequence[str], values: Mapping[str, Any], has_rows: bool) -> Ran | None:
        """Run a statement in which the values of ``names`` stand like ``%(task_id)s``.

        ``None`` if it is not prepared, or not any more: then it is to be run in another way.

        Raises:
            psycopg.Error: as a cursor of psycopg raises it.
        """
        prepared = self._names.get(text) or self._prepare(text, names)
        if prepared is None:
            return None
        row, adapters = [values[name] for name in names], self._adapters
        formats = [self._binary if type(value) is bytes else self._text for value in row]
        self._server.send_query_prepared(prepared, adapters.dump_sequence(row, formats), adapters.formats, 1)
        try:
            result = self._answer()
        except self._driver.Error as error:
            if error.sqlstate not in OUTDATED:
                raise
            del self._names[text], self._runs[text]
            return None
        return Ran(self._rows(result) if has_rows else [], result.command_tuples or 0)

    def _prepare(self, text: str, names: Sequence[str]) -> bytes | None:
        """Prepare a statement if it has run often enough, and return the name under which the server has it then."""
        self._runs[text] += 1
        if self._runs[text] <= self._threshold:
            return None
        prepared = b"celery_sql_results_%d" % next(self._numbers)
        numbered = text % {name: f"${number}" for number, name in enumerate(names, 1)}
        self._server.send_prepare(prepared, numbered.encode(self._connection.info.encoding))
        self._answer()
        self._names[text] = prepared
        return prepared

    def _answer(self) -> Any:
        result = self._connection.wait(self._answers(self._server))[0]
        if result.status == self._driver.pq.ExecStatus.FATAL_ERROR:
            raise self._driver.errors.error_from_result(result, encoding=self._connection.info.encoding)
        return result

    def _rows(self, result: Any) -> list[Any]:
        self._adapters.set_pgresult(result)
        try:
            rows: list[Any] = self._adapters.load_rows(0, result.ntuples, tuple)
        finally:
            self._adapters.set_pgresult(None)  # or it would be held until the next
        return rows


def statements_of(entry: Any) -> PreparedStatements | None:
    """Those of the connection of an entry of a pool; ``None`` if its driver is not psycopg 3."""
    info, connection = entry.info, entry.dbapi_connection
    if STATEMENTS not in info:
        info[STATEMENTS] = PreparedStatements(connection) if hasattr(connection, "pgconn") else None
    found: PreparedStatements | None = info[STATEMENTS]
    return found
