"""What is stored of a row that the database refuses: as much as it takes, and the reason for the rest.

The stand-ins are ordered from nearly whole to one that every server and every old table takes for its content: ASCII,
short, without a payload of the task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from celery import states

from celery_sql_results.errors import ResultRefused
from celery_sql_results.foreign import escaping
from celery_sql_results.models import NAME_LENGTH, PART_COLUMNS, RECORDED_COLUMNS, TASK_COLUMNS

from .entry import PART, TASK, Entry
from .retry import Failed

__all__ = ["Encode", "put_stand_in"]

logger = escaping(logging.getLogger(__name__))

Row = Mapping[str, Any]
#: The payload of a value for a state.
Encode = Callable[[Any, str], bytes]

#: Columns that tell the outcome of a task; what else there is, also of a subclass, only informs.
ESSENTIAL = {TASK: frozenset(TASK_COLUMNS) - {"children"}, PART: frozenset(PART_COLUMNS)}
#: Beside these, columns that are short.
SHORT = {TASK: frozenset(RECORDED_COLUMNS), PART: frozenset[str]()}
#: Columns that stay as they are: a row is found and read by them.
KEYS = {TASK: frozenset({"task_id", "status", "content_type"})}
KEYS[PART] = KEYS[TASK] | {"group_id"}
#: Characters that a marker keeps of each end of a traceback.
END_OF_TRACEBACK = 4_000


def put_stand_in(
    entry: Entry, failed: Failed, attempt: Callable[[Entry], Failed | None], encode: Encode
) -> Failed | None:
    """Store the first stand-in that the database takes, and tell the log; or return how the last attempt failed.

    Args:
        entry: what was refused. Only tasks and parts have stand-ins.
        failed: how it was refused.
        attempt: stores an entry, or returns how that failed.
        encode: the payload of a value for a state.
    """
    reason = failed.verdict.refusal or ""
    for words, stand_in in _stand_ins(entry, reason, encode):
        last = attempt(stand_in)
        if last is None:
            logger.error("%s, %d bytes, was refused by the database (%s): stored %s", entry, entry.size, reason, words)
            return None
        failed = last
        if failed.verdict.refusal is None:
            break
    return failed


def _stand_ins(entry: Entry, reason: str, encode: Encode) -> Iterator[tuple[str, Entry]]:
    """What to store instead, best first, each with the words for it."""
    if entry.kind in KEYS:
        for words, row in _rows(entry, reason, encode):
            part = entry.part and {**entry.part, "status": row["status"], "result": row["result"]}
            yield words, Entry(entry.kind, row, part)


def _rows(entry: Entry, reason: str, encode: Encode) -> Iterator[tuple[str, Row]]:
    row, keys, essential = entry.row, KEYS[entry.kind], ESSENTIAL[entry.kind]
    plain = {column: value if column in keys else _plain(column, value) for column, value in row.items()}
    bare = {column: value for column, value in plain.items() if column in essential}
    short = {column: value for column, value in plain.items() if column in essential | SHORT[entry.kind]}
    marker = _marker(plain, reason, encode)
    if plain != row:
        yield "its texts in ASCII", plain
    if any(value is not None for column, value in plain.items() if column not in short):
        yield "without children, arguments and stamps", short
    if len(bare) < len(short):
        yield "only its outcome", bare
    yield "a marker instead of the result", {**plain, **marker}
    if len(short) < len(row):
        yield "a marker instead of the result, without children, arguments and stamps", {**short, **marker}
    if len(bare) < len(short):
        yield "a marker instead of the result, and nothing else", {**bare, **marker}
    yield "a short marker, and nothing else", {**bare, **_least(row, encode)}


def _plain(column: str, value: Any) -> Any:
    """A text that every character set has. Names stay as long as their columns."""
    if not isinstance(value, str) or value.isascii():
        return value
    escaped = value.encode("ascii", "backslashreplace").decode()
    return escaped if column == "traceback" else escaped[:NAME_LENGTH]


def _marker(row: Row, reason: str, encode: Encode) -> Row:
    """The columns of a row whose result was refused."""
    size = len(row["result"] or b"")
    said = (
        f"the task ended in {row['status']}, but the database refused its result of {size} bytes ({reason}): "
        "return less, or store it elsewhere and return where"
    )
    told = {"traceback": _clipped(row["traceback"])} if "traceback" in row else {}
    return {**_refused(row, said, encode), **told}


def _least(row: Row, encode: Encode) -> Row:
    """The last resort: why is in the log. A column that may not be NULL takes an empty traceback."""
    told = {"traceback": row["traceback"] and ""} if "traceback" in row else {}
    return {**_refused(row, "refused by the database", encode), **told}


def _refused(row: Row, said: str, encode: Encode) -> Row:
    """What succeeded fails: its value is lost."""
    status = states.FAILURE if row["status"] == states.SUCCESS else row["status"]
    value = ResultRefused(said) if status in states.EXCEPTION_STATES else said
    return {"status": status, "result": encode(value, status)}


def _clipped(traceback: str | None) -> str | None:
    """Both ends of a traceback: where it began, and what was raised."""
    if traceback is None or len(traceback) <= 2 * END_OF_TRACEBACK:
        return traceback
    left_out = len(traceback) - 2 * END_OF_TRACEBACK
    head, tail = traceback[:END_OF_TRACEBACK], traceback[-END_OF_TRACEBACK:]
    return f"{head}\n... {left_out} characters left out ...\n{tail}"
