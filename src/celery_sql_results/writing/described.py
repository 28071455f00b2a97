"""An error of a driver in one line of the log."""

from __future__ import annotations

__all__ = ["describe"]

#: How a line begins on one of several attempts, of psycopg 3 and of libpq: on other hosts, or without TLS.
HOST = ("- host: ", "connection failed: ", "connection to server at ")


def describe(error: BaseException) -> str:
    """The first line of the driver's own words: others may quote a row, and SQLAlchemy's add the statement.

    Of several hosts that were tried, one line each.
    """
    original = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(original).strip().splitlines()] or [""]
    hosts = [line for line in lines if line.startswith(HOST)]
    return f"{type(original).__name__}: {'; '.join(hosts or lines[:1])}"
