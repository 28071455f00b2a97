"""Refusals of content: how large a statement is on the wire, and what a driver says of it without its values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["number_of", "reason_of", "wire_size"]

#: The words of a driver end here at the latest: what follows may be a piece of the payload.
QUOTATION = re.compile(r"[:'\"`\n]")
#: What a driver that writes values into the text of a statement puts a backslash before.
ESCAPED = (b"\x00", b"\n", b"\r", b"\x1a", b'"', b"'", b"\\")


def number_of(error: BaseException) -> int | None:
    """The number of an error of MySQL's family: drivers put it first, or have a name for it."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, int) else getattr(error, "errno", None)


def reason_of(error: BaseException) -> str:
    """What a driver says, in one line and without what it quotes: that may be a piece of the payload."""
    # The message of mysql-connector stands in its arguments with the number before it.
    number, said = number_of(error), (getattr(error, "msg", None), *error.args)
    words = QUOTATION.split(next((word for word in said if isinstance(word, str)), "").strip())[0].strip()
    told = words if number is None else f"{number} {words}".strip()
    return f"{type(error).__name__}: {told}" if told else type(error).__name__


def wire_size(parameters: Any, escaped: bool = False) -> int:
    """Bytes that the values of a statement take on the wire; ``escaped`` if they are written into its text."""
    total = 0
    for value in _values(parameters):
        data = value.encode("utf-8", "replace") if isinstance(value, str) else value
        total += len(data)
        if escaped:
            total += sum(data.count(character) for character in ESCAPED)
    return total


def _values(parameters: Any) -> Iterator[Any]:
    if isinstance(parameters, Mapping):
        parameters = parameters.values()
    return (value for value in parameters or () if isinstance(value, (str, bytes, bytearray)))
