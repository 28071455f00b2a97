"""SQLSTATE: what the SQL standard calls an error, which many drivers hand on whatever class they raise.

The first two of its five characters are its class, and mean the same on every database: ISO/IEC 9075-2, "SQLSTATE class
and subclass values".
"""

from __future__ import annotations

import re

__all__ = ["CONSTRAINT", "DATA", "PASSING", "is_of", "sqlstate"]

#: What a SQLSTATE looks like.
CODE = re.compile(r"[0-9A-Z]{5}")
#: A constraint was violated.
CONSTRAINT = ("23",)
#: A value is wrong: too long, out of range, not in the character set.
DATA = ("22",)
#: The connection was lost, or the transaction was rolled back: by a deadlock, or by another that was quicker.
PASSING = ("08", "40")


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE that the server has given, where drivers keep it; of their own error, or of what wraps it."""
    orig = getattr(error, "orig", None) or error
    state = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
    first = orig.args[0] if state is None and orig.args else None
    if isinstance(first, dict):  # pg8000: the fields of the server's message
        state = first.get("C")
    elif isinstance(first, str) and CODE.fullmatch(first):
        state = first  # ODBC: https://github.com/mkleehammer/pyodbc/wiki/Exceptions
    return state and str(state)


def is_of(state: str | None, classes: tuple[str, ...]) -> bool:
    """Whether a SQLSTATE is known, and of one of some classes."""
    return state is not None and state.startswith(classes)
