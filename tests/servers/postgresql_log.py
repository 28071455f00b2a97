"""Reads PostgreSQL's log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

#: The server's log_line_prefix: time, process, database and application.
PREFIX = "%m [%p] %d|%a|"

_START = re.compile(r"\d{4}-\S+ \S+ \S+ \[\d+\] ([^|\n]*)\|([^|\n]*)\|([A-Z0-9]+):  ")
_STATEMENT = re.compile(r"(statement|execute [^:]+): ")


class Message(NamedTuple):
    """One message, with its continuation lines; `line` is the whole of it as logged."""

    database: str
    application: str
    severity: str
    text: str
    line: str

    @property
    def is_error(self) -> bool:
        """Whether a statement, a connection or the server failed."""
        return self.severity in {"ERROR", "FATAL", "PANIC"}

    @property
    def statement(self) -> str | None:
        """The text of a logged statement, simple or prepared."""
        found = _STATEMENT.match(self.text) if self.severity == "LOG" else None
        return self.text[found.end() :] if found else None


def messages(log: str) -> Iterator[Message]:
    """Take a log apart; lines that begin with a tab continue the line before."""
    for line in re.split(r"\n(?!\t)", log):
        if start := _START.match(line):
            database, application, severity = start.groups()
            yield Message(database, application, severity, line[start.end() :].replace("\n\t", "\n"), line)
