"""How a database answers questions of people: read-only, within a time limit, without what may be large.

:class:`Reads` is portable; a subclass holds what its database does better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

__all__ = ["Reads", "like_pattern", "whole"]

#: What stands for any text, and for any character, in the patterns that people write.
ANY, ONE = "*", "?"
#: Seconds that a driver gives a server at least, as libpq has it, and at most, as PyMySQL.
LEAST, MOST = 2, 365 * 86400


class Reads:
    """A database that we know nothing of. It has no time limit for a statement, and computes with no times."""

    #: A time before all others, as SQL writes it.
    never: sa.ColumnElement[Any] = sa.literal_column("TIMESTAMP '1970-01-01 00:00:00'", sa.DateTime())

    def patience(self, url: URL, seconds: float, looks: bool) -> dict[str, Any]:
        """Arguments of a driver by which it gives a silent server up after about so many seconds, as far as it can.

        That is while it connects; if somebody only ``looks``, also while an answer is waited for. Here unknown.
        """
        return {}

    @property
    def computes(self) -> bool:
        """Whether it computes with times."""
        return type(self).seconds is not Reads.seconds

    @contextmanager
    def connect(self, engine: Engine, seconds: float) -> Iterator[Connection]:
        """A connection that only reads, on which each statement ends with an error after so many seconds.

        ``impl.is_timed_out`` knows the error.
        """
        with engine.connect() as connection:
            yield connection

    def function(self, name: str) -> Any:
        """A function of the database's own, by its name."""
        return getattr(sa.func, name)

    def like(self, column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
        """``column`` is a text like ``pattern``, in which ``*`` stands for any text and ``?`` for any character."""
        return column.like(like_pattern(pattern, "!"), escape="!")

    def head(self, column: sa.ColumnElement[bytes], size: int) -> sa.ColumnElement[bytes]:
        """The first bytes of a payload."""
        return self.function("substr")(column, 1, size, type_=sa.LargeBinary)  # type: ignore[no-any-return]

    def tail(self, column: sa.ColumnElement[str], size: int) -> sa.ColumnElement[str]:
        """The last characters of a text."""
        return self.function("right")(column, size, type_=sa.Text)  # type: ignore[no-any-return]

    def seconds(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
        """Seconds between two times; here unknown."""
        return sa.cast(sa.null(), sa.Float)

    def hour(self, time: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """The hour that a time is in, as ``2026-01-31 23``; here unknown."""
        return sa.cast(sa.null(), sa.String(13))

    def sizes(self, connection: Connection, tables: Sequence[sa.Table]) -> list[Mapping[str, Any]]:
        """Of each table about how many ``rows`` it has, ``bytes`` with its indexes, and ``index_bytes`` of these.

        And how many rows are ``dead``. What the database does not tell is ``None``; here there is nothing at all.
        """
        return []


def whole(seconds: float) -> int:
    """A time limit as all drivers take it."""
    return min(max(math.ceil(seconds), LEAST), MOST)


def like_pattern(pattern: str, escape: str) -> str:
    """A pattern of people as SQL's LIKE takes it."""
    escaped = "".join(f"{escape}{each}" if each in f"%_{escape}" else each for each in pattern)
    return escaped.replace(ANY, "%").replace(ONE, "_")
