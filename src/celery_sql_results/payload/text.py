"""Text that a column takes: what it would refuse is escaped, what is too long is clipped."""

from __future__ import annotations

from celery_sql_results.ids import as_text
from celery_sql_results.models import NAME_LENGTH

__all__ = ["name", "text"]


def text(value: object, longest: int | None = None, *, ascii: bool = False) -> str | None:
    """Escape what no text column takes (NUL, lone surrogates), then clip to ``longest`` characters.

    With ``ascii`` everything else is escaped too that a column in some old character set would refuse.
    """
    if value is None:
        return None
    value = as_text(value)
    if "\x00" in value:
        value = value.replace("\x00", "\\x00")
    if not value.isascii():
        charset = "ascii" if ascii else "utf-8"
        value = value.encode(charset, "backslashreplace").decode(charset)
    return value[:longest]


def name(value: object) -> str | None:
    """A text that fits the columns of names and ids."""
    return text(value, NAME_LENGTH)
