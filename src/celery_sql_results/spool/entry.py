"""One write that waits: its kind and the columns of its row, as JSON.

Values keep their type by a tag: ``{"bytes": base64}`` and ``{"time": ISO 8601}``; all others are their own. A file is
trusted with nothing: it may set the columns of a table to values of their types, and that is all.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from celery_sql_results.models import Models

__all__ = ["GROUP", "PART", "TASK", "Entry", "Unreadable", "dumps", "loads"]

#: What an entry can be: a task's row, a part of a chord, a saved group.
TASK, PART, GROUP = "task", "part", "group"
VERSION = 1

_NEEDED = {
    TASK: ("task_id", "status"),
    PART: ("group_id", "task_id", "position", "status"),
    GROUP: ("taskset_id",),
}


class Unreadable(ValueError):
    """An entry is none: cut off, of another version, or made by somebody else. The message shows no content."""


class Entry(NamedTuple):
    """A kind and a row."""

    kind: str
    row: Mapping[str, Any]


def dumps(entry: Entry) -> bytes:
    """The content of a file."""
    row = {name: _tagged(value) for name, value in entry.row.items()}
    return json.dumps({"version": VERSION, "kind": entry.kind, "row": row}).encode()


def loads(data: bytes, models: Models) -> Entry:
    """Read a file of a spool for ``models``.

    Raises:
        Unreadable: it is no entry that could be stored there.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is not JSON ({type(error).__name__})") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise Unreadable(f"it is not of version {VERSION}")
    kind, row = found.get("kind"), found.get("row")
    if not isinstance(kind, str) or kind not in _NEEDED or not isinstance(row, dict):
        raise Unreadable("it is of no kind that is known")
    return Entry(kind, _checked(row, _table(kind, models), _NEEDED[kind]))


def _table(kind: str, models: Models) -> sa.Table:
    return {TASK: models.task, PART: models.parts, GROUP: models.group}[kind]


def _checked(row: Mapping[str, Any], table: sa.Table, needed: tuple[str, ...]) -> dict[str, Any]:
    columns = table.columns
    if not set(row) <= set(columns.keys()) - {"id"} or not all(row.get(name) is not None for name in needed):
        raise Unreadable(f"its columns are not those of {table.name}")
    values = {name: _untagged(value) for name, value in row.items()}
    for name, value in values.items():
        if value is not None and type(value) is not columns[name].type.python_type:
            raise Unreadable(f"its column {name} is of a wrong type")
    return values


def _tagged(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": b64encode(value).decode()}
    return {"time": value.isoformat()} if isinstance(value, datetime) else value


def _untagged(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        [(tag, content)] = value.items()
        return b64decode(content, validate=True) if tag == "bytes" else _time(tag, content)
    except (ValueError, TypeError, binascii.Error) as error:
        raise Unreadable("it holds a value that cannot be read") from error


def _time(tag: str, content: str) -> datetime:
    if tag != "time":
        raise ValueError
    return datetime.fromisoformat(content)
