"""How an entry is written to a file of the spool, as JSON, and read again.

Values keep their type by a tag: ``{"bytes": base64}`` and ``{"time": ISO 8601}``; all others are their own. A file is
trusted with nothing: it may set the columns of a table to values of their types, and that is all.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from celery_sql_results.ids import asked_id
from celery_sql_results.models import EXTENDED_COLUMNS, PART_COLUMNS, TASK_COLUMNS, Models
from celery_sql_results.writing.entry import GROUP, PART, TASK, Entry

__all__ = ["Unreadable", "dumps", "loads"]

VERSION = 1

#: The columns that each write sets, and of these the ones that are never NULL.
_SET = {
    TASK: TASK_COLUMNS,
    PART: PART_COLUMNS,
    GROUP: ("taskset_id", "result", "date_done", "content_type"),
}
#: Columns that an entry may have: those of the package, whose types are known.
_KNOWN = {**_SET, TASK: (*TASK_COLUMNS, *EXTENDED_COLUMNS)}
_IDS = {"task_id", "taskset_id", "group_id"}
_NEVER_NULL = {*_IDS, "position", "status"}


class Unreadable(ValueError):
    """An entry is none: cut off, of another version, or made by somebody else. The message shows no content."""


def dumps(entry: Entry) -> bytes:
    """The content of a file."""
    ours = {name: value for name, value in entry.row.items() if name in _KNOWN[entry.kind]}  # a subclass may have more
    part = None if entry.part is None else _tagged_all(entry.part)
    return json.dumps({"version": VERSION, "kind": entry.kind, "row": _tagged_all(ours), "part": part}).encode()


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
    kind, part = found.get("kind"), found.get("part")
    if not isinstance(kind, str) or kind not in _SET:
        raise Unreadable("it is of no kind that is known")
    return Entry(kind, _checked(found.get("row"), kind, models), None if part is None else _checked(part, PART, models))


def _checked(row: Any, kind: str, models: Models) -> dict[str, Any]:
    """The row with every column that is always written: an older release may not have known one of them."""
    if not isinstance(row, dict):
        raise Unreadable("it has no row")
    table, written = {TASK: models.task, PART: models.parts, GROUP: models.group}[kind], _SET[kind]
    columns = table.columns
    values = {**dict.fromkeys(written), **{name: _untagged(value) for name, value in row.items()}}
    if not set(row) <= set(columns.keys()) - {"id"} or any(values[name] is None for name in _NEVER_NULL & set(written)):
        raise Unreadable(f"its columns are not those of {table.name}")
    if any(asked_id(values[name]) is None for name in _IDS & set(written)):
        raise Unreadable("no row can have its id")
    for name, value in values.items():
        if value is not None and not _fits(value, columns[name].type):
            raise Unreadable(f"its column {name} is of a wrong type, or too long")
    return values


def _fits(value: Any, of: Any) -> bool:
    longest = getattr(of, "length", None)
    return type(value) is of.python_type and (longest is None or len(value) <= longest)


def _tagged_all(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tagged(value) for name, value in row.items()}


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
