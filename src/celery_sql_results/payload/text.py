"""Text that a column takes, and that a message takes: what would be refused is escaped, what is too long is clipped."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

from kombu.utils.encoding import safe_repr

from celery_sql_results.ids import as_text
from celery_sql_results.models import NAME_LENGTH

__all__ = ["bounded_repr", "clipped", "is_short", "name", "text"]

#: Characters of a value that a message shows.
LONGEST = 1000
#: Characters that anything takes to be shown, with what stands between it and the next.
EACH = 4
#: How deep a value is looked into.
DEPTH = 20


def text(value: object, longest: int | None = None, *, ascii: bool = False) -> str | None:
    """Escape what no text column takes (NUL, lone surrogates), then clip to ``longest`` characters.

    With ``ascii`` everything else is escaped too that a column in some old character set would refuse.
    """
    if value is None:
        return None
    if type(value) is not str:
        value = as_text(value)
    if "\x00" in value:
        value = value.replace("\x00", "\\x00")
    if not value.isascii():
        charset = "ascii" if ascii else "utf-8"
        value = value.encode(charset, "backslashreplace").decode(charset)
    return value[:longest]


def name(value: object) -> str | None:
    """A text that fits the columns of names and ids."""
    if type(value) is str and len(value) <= NAME_LENGTH and value.isascii() and "\x00" not in value:
        return value  # nearly all are, and every row has several
    return text(value, NAME_LENGTH)


def clipped(shown: str, longest: int = LONGEST) -> str:
    """The beginning of a text, or all of it."""
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def bounded_repr(value: object, longest: int = LONGEST) -> str:
    """How a value of a row is shown in a message: its ``repr``, unless that were long."""
    if is_short(value, longest):
        return clipped(safe_repr(value), longest)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}({', '.join(map(_beginning.repr, value.args[:1]))}…)"
    return _beginning.repr(value)


def is_short(value: object, longest: int = LONGEST) -> bool:
    """Whether the ``repr`` of a value, were it asked for, would not be much longer, nor take long."""
    return _room(value, longest, DEPTH) >= 0


def _room(value: Any, room: int, depth: int) -> int:
    """How many of ``room`` characters a value leaves; below 0 it is not looked into any more."""
    if isinstance(value, (str, bytes)):
        return room - len(value)
    if isinstance(value, int):
        return room - value.bit_length() // 3
    if isinstance(value, BaseException):
        value = value.args
    if isinstance(value, dict):
        value = [*value.items()] if len(value) < room else (room,) * room
    if not isinstance(value, (list, tuple, set, frozenset)):
        return room - EACH
    return _room_in(value, room - EACH, depth - 1) if depth else -1


def _room_in(values: Iterable[Any], room: int, depth: int) -> int:
    for value in values:
        room = _room(value, room - EACH, depth)
        if room < 0:
            break
    return room


class _Beginning(reprlib.Repr):
    """Shows the beginning of what is long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, 100, 100

    def repr_int(self, x: int, level: int) -> str:
        """Python shows no number of more than 4,300 digits, and takes long for them."""
        return repr(x) if is_short(x, self.maxother) else f"<a number of {x.bit_length()} bits>"

    def repr_instance(self, x: Any, level: int) -> str:
        """Of an exception, which shows all that it holds, no more than its name."""
        return f"{type(x).__name__}(…)" if isinstance(x, BaseException) else super().repr_instance(x, level)


_beginning = _Beginning()
