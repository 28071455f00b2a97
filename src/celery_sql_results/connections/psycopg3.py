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
from typing import Any

from celery_sql_results._compat import private

__all__ = ["Outdated", "Statements", "statements_of"]

#: SQLSTATEs of a statement that the server does not have any more as it was prepared: a column has another type since,
#: or somebody deallocated it, or a pooler has given us another server. Nothing was done then.
OUTDATED = ("0A000", "26000")
#: Statements of one connection that are known, and may be prepared, unless psycopg's ``prepared_max`` says otherwise.
KNOWN = 100


EXECUTE, TOLD = "psycopg.generators:execute", "psycopg.errors:error_from_result"


@dataclass
class _Statement:
    """What is sent of a statement, how often before it is prepared, and the name that it has then."""

    text: bytes
    left: float
    name: bytes | None = None


class Outdated(Exception):
    """The server does not have a statement any more as it was prepared."""


class Statements:
    """The statements that one connection has run. Of many, those that ran last are known, and stay prepared.

    Args:
        connection: a connection of psycopg 3 in autocommit. As its ``prepare_threshold`` says, a statement is prepared
            when it has run so often, or never.
    """

    def __init__(self, connection: Any) -> None:
        import psycopg  # there, since the connection is one of it

        self._connection, self._server, self._driver = connection, connection.pgconn, psycopg
        answers: Any = private(EXECUTE)
        told: Any = private(TOLD)
        self._wait, self._answers, self._told = connection.wait, answers, told
        status = psycopg.pq.ExecStatus
        self._failed, self._end_of_turn = status.FATAL_ERROR, status.PIPELINE_SYNC
        #: Whether :meth:`run_in_turn` can be had: libpq 14 has it.
        self.runs_in_turn: bool = psycopg.Pipeline.is_supported()
        self._adapters = psycopg.adapt.Transformer(connection)
        self._text, self._binary = psycopg.adapt.PyFormat.TEXT, psycopg.adapt.PyFormat.BINARY
        threshold = connection.prepare_threshold
        self._threshold = math.inf if threshold is None else threshold
        # Two generations: what has run since the last change of generations is new.
        self._new: dict[str, _Statement] = {}
        self._old: dict[str, _Statement] = {}
        self._most = max(1, (connection.prepared_max or KNOWN) // 2)
        # Names that nobody else has: behind a pooler that mixes clients up, one might be of another statement.
        self._token, self._numbers = secrets.token_hex(4), count(1)

    def run(self, text: str, names: Sequence[str], values: Mapping[str, Any], has_rows: bool) -> tuple[list[Any], int]:
        """Run a statement in which the values of ``names`` stand like ``%(task_id)s``.

        Return the rows that it has given, and how many it has found or written.

        Raises:
            psycopg.Error: as a cursor of psycopg raises it.
        """
        statement = self._new.get(text) or self._renew(text, names)
        sent, formats = self._dumped(names, values)
        result = None
        if statement.name is not None or self._prepare(statement):
            self._server.send_query_prepared(statement.name, sent, formats)
            try:
                result = self._answer()
            except self._driver.Error as error:
                if error.sqlstate not in OUTDATED:
                    raise
                statement.name, statement.left = None, math.inf
        if result is None:
            self._server.send_query_params(statement.text, sent, None, formats)
            result = self._answer()
        return self._rows(result) if has_rows else [], result.command_tuples or 0

    def run_in_turn(self, *statements: tuple[str, Sequence[str], Mapping[str, Any]]) -> None:
        """Run statements one after the other, each committed by itself, in one round trip; see :meth:`run`.

        One that fails does not keep the next from running.

        Raises:
            Outdated: the first was not run, because it is not prepared any more.
            psycopg.Error: of the first; what becomes of the others is not told.
        """
        known = [self._new.get(text) or self._renew(text, names) for text, names, _ in statements]
        are_prepared = [statement.name is not None or self._prepare(statement) for statement in known]
        self._server.enter_pipeline_mode()
        for statement, is_prepared, (_, names, values) in zip(known, are_prepared, statements, strict=True):
            sent, formats = self._dumped(names, values)
            if is_prepared:
                self._server.send_query_prepared(statement.name, sent, formats)
            else:
                self._server.send_query_params(statement.text, sent, None, formats)
            self._server.pipeline_sync()
        errors = [self._answer_in_turn(statement) for statement in known]
        self._server.exit_pipeline_mode()
        if errors[0] is not None:
            raise Outdated if known[0].left == math.inf and errors[0].sqlstate in OUTDATED else errors[0]

    def _answer_in_turn(self, statement: _Statement) -> Any:
        """The error of a statement of a pipeline, if it or its commit has failed."""
        results: list[Any] = []
        while not results or results[-1].status != self._end_of_turn:
            results += self._wait(self._answers(self._server))
        for result in results:
            if result.status == self._failed:
                error = self._told(result, encoding=self._connection.info.encoding)
                if statement.name is not None and error.sqlstate in OUTDATED:
                    statement.name, statement.left = None, math.inf
                return error
        return None

    def _dumped(self, names: Sequence[str], values: Mapping[str, Any]) -> tuple[Any, Any]:
        """The values of ``names`` as they are sent, and their formats."""
        row, adapters = [values[name] for name in names], self._adapters
        sent = adapters.dump_sequence(row, [self._binary if type(value) is bytes else self._text for value in row])
        return sent, adapters.formats

    def _renew(self, text: str, names: Sequence[str]) -> _Statement:
        """A statement that did not run in this generation, as an old one or as one never heard of."""
        if len(self._new) >= self._most:
            forgotten, self._old, self._new = self._old, self._new, {}
            for statement in forgotten.values():
                self._deallocate(statement)
        statement = self._new[text] = self._old.pop(text) if text in self._old else self._first(text, names)
        return statement

    def _first(self, text: str, names: Sequence[str]) -> _Statement:
        numbered = text % {name: f"${number}" for number, name in enumerate(names, 1)}
        return _Statement(numbered.encode(self._connection.info.encoding), self._threshold)

    def _deallocate(self, statement: _Statement) -> None:
        """Let the server forget a statement. Only libpq 17 and later can say so in a way that poolers understand."""
        if statement.name is None:
            return
        name, statement.name = statement.name, None
        try:
            self._server.send_close_prepared(name)
        except (AttributeError, self._driver.NotSupportedError):  # psycopg 3.1, or an older libpq
            self._server.send_query(b"DEALLOCATE " + name)
        try:
            self._answer()
        except self._driver.Error as error:
            if error.sqlstate not in OUTDATED:
                raise

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
        results = self._wait(self._answers(self._server))
        for result in results:  # a commit that fails has one of its own, after that of its statement
            if result.status == self._failed:
                raise self._told(result, encoding=self._connection.info.encoding)
        return results[0]

    def _rows(self, result: Any) -> list[Any]:
        self._adapters.set_pgresult(result)
        try:
            rows: list[Any] = self._adapters.load_rows(0, result.ntuples, tuple)
        finally:
            self._adapters.set_pgresult(None)  # or it would be held until the next
        return rows


def statements_of(connection: Any) -> Statements | None:
    """Those of a connection; ``None`` if it is not one that psycopg 3 makes by itself."""
    psycopg: Any = sys.modules.get("psycopg")
    is_own = psycopg is not None and type(connection) is psycopg.Connection
    is_plain = is_own and connection.cursor_factory is psycopg.Cursor and connection.autocommit
    return Statements(connection) if is_plain else None
