"""Statements on a connection of psycopg 3 without its cursor.

A cursor looks at statement and values anew each time, which takes about half as long as the server works to store a
result. Here that is done once for each connection, and what runs again stays prepared. psycopg's own adapters turn the
values into what is sent, and back, and its own wait lets signals and other greenlets run meanwhile.
"""

from __future__ import annotations

import math
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

__all__ = ["Statements", "statements_of"]

#: Under what an entry of the pool keeps the statements of its connection.
STATEMENTS = "celery_sql_results.statements"
#: SQLSTATEs of a statement that the server does not have any more as it was prepared: a column has another type since,
#: or somebody deallocated it, or a pooler has given us another server. Nothing was done then.
OUTDATED = ("0A000", "26000")


class Ran(NamedTuple):
    """The rows that a statement has given, and how many it has found or written."""

    rows: list[Any]
    rowcount: int


@dataclass
class _Statement:
    """What is sent of a statement, how often before it is prepared, and the name that it has then."""

    text: bytes
    left: float
    name: bytes | None = None


class Statements:
    """The statements that one connection has run.

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
        self._known: dict[str, _Statement] = {}
        # Names that nobody else has: behind a pooler that mixes clients up, one might be of another statement.
        self._token, self._numbers = secrets.token_hex(4), count(1)

    def run(self, text: str, names: Sequence[str], values: Mapping[str, Any], has_rows: bool) -> Ran:
        """Run a statement in which the values of ``names`` stand like ``%(task_id)s``.

        Raises:
            psycopg.Error: as a cursor of psycopg raises it.
        """
        statement = self._known.get(text) or self._add(text, names)
        row, adapters = [values[name] for name in names], self._adapters
        sent = adapters.dump_sequence(row, [self._binary if type(value) is bytes else self._text for value in row])
        result = None
        if statement.name is not None or self._prepare(statement):
            self._server.send_query_prepared(statement.name, sent, adapters.formats)
            try:
                result = self._answer()
            except self._driver.Error as error:
                if error.sqlstate not in OUTDATED:
                    raise
                statement.name, statement.left = None, math.inf
        if result is None:
            self._server.send_query_params(statement.text, sent, None, adapters.formats)
            result = self._answer()
        return Ran(self._rows(result) if has_rows else [], result.command_tuples or 0)

    def _add(self, text: str, names: Sequence[str]) -> _Statement:
        numbered = text % {name: f"${number}" for number, name in enumerate(names, 1)}
        statement = _Statement(numbered.encode(self._connection.info.encoding), self._threshold)
        self._known[text] = statement
        return statement

    def _prepare(self, statement: _Statement) -> bool:
        """Prepare a statement, if it has run often enough, and return whether it has."""
        if statement.left > 0:
            statement.left -= 1
            return False
        name = f"celery_sql_results_{self._token}_{next(self._numbers)}".encode()
        self._server.send_prepare(name, statement.text)
        self._answer()
        statement.name = name
        return True

    def _answer(self) -> Any:
        results = self._connection.wait(self._answers(self._server))
        for result in results:  # a commit that fails has one of its own, after that of its statement
            if result.status == self._driver.pq.ExecStatus.FATAL_ERROR:
                raise self._driver.errors.error_from_result(result, encoding=self._connection.info.encoding)
        return results[0]

    def _rows(self, result: Any) -> list[Any]:
        self._adapters.set_pgresult(result)
        try:
            rows: list[Any] = self._adapters.load_rows(0, result.ntuples, tuple)
        finally:
            self._adapters.set_pgresult(None)  # or it would be held until the next
        return rows


def statements_of(entry: Any) -> Statements | None:
    """Those of the connection of an entry of a pool; ``None`` if its cursor is not that of psycopg 3."""
    info = entry.info
    if STATEMENTS not in info:
        factory, psycopg = getattr(entry.dbapi_connection, "cursor_factory", None), sys.modules.get("psycopg")
        info[STATEMENTS] = Statements(entry.dbapi_connection) if psycopg and factory is psycopg.Cursor else None
    found: Statements | None = info[STATEMENTS]
    return found
