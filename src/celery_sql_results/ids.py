"""What counts as an id: whatever Celery accepts as one is text from here on.

Celery takes a UUID, a subclass of ``str``, or anything else whose text is the id. Drivers do not: each makes something
of its own of it, or refuses it. So every id is made text before it reaches a row or a query. What no column can hold is
an error for whoever stores (:func:`stored_id`), and simply unknown to whoever asks (:func:`asked_id`).
"""

from __future__ import annotations

from .errors import TaskIdInvalid, TaskIdTooLong

__all__ = ["BLANK", "LONGEST", "as_text", "asked_id", "stored_id"]

#: Characters that a column of ids holds.
LONGEST = 155
#: Some databases take texts for equal that differ only in these at their end, and a text of nothing else for none.
BLANK = " "


def as_text(value: object) -> str:
    """The text of an id. Bytes are UTF-8; what is none becomes lone surrogates, which no column can hold."""
    if isinstance(value, str):  # as JSON writes it: the str() of an enum's member would be its name
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "surrogateescape")
    return str(value)


def asked_id(value: object) -> str | None:
    """The id to ask for; ``None`` if no row can have it."""
    if type(value) is str and 0 < len(value) <= LONGEST and value.isascii() and "\x00" not in value and value[0] != " ":
        return value
    if value is None:
        return None
    id_ = as_text(value)
    return None if len(id_) > LONGEST or not id_.strip(BLANK) or _fault(id_) else id_


def stored_id(kind: str, value: object) -> str:
    """The id to store under.

    Args:
        kind: what it is the id of, for the message: ``"task"``, ``"group"``.
        value: an id as Celery has it.

    Raises:
        TaskIdTooLong: it has more than :data:`LONGEST` characters.
        TaskIdInvalid: it is none, or blank, or holds what no column can.
    """
    id_ = asked_id(value)
    if id_ is not None:
        return id_
    refused = "" if value is None else as_text(value)
    if len(refused) > LONGEST:
        raise TaskIdTooLong(kind, refused, LONGEST)
    if not refused.strip(BLANK):
        raise TaskIdInvalid(f"the {kind} id is {value!r}: give it one")
    raise TaskIdInvalid(f"the {kind} id {refused[:40]!a} holds {_fault(refused)}, which no column can: choose another")


def _fault(id_: str) -> str | None:
    """What keeps every column from holding a text."""
    if "\x00" in id_:
        return "NUL"
    try:
        id_.encode()
    except UnicodeEncodeError:
        return "a lone surrogate"
    return None
