"""Payloads for people to read: decoded without running anything, whoever has written them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from celery import states
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.serialization import prepare_accept_content

from celery_sql_results.boundaries import caught

from .encoding import Encoding

__all__ = ["NotReadable", "Readable", "raised", "task_of"]

#: What may be read: texts of data. Pickles are read as far as they hold nothing but plain data; see :mod:`.plain`.
ACCEPT = ("json", "yaml", "msgpack")
#: How JSON begins that holds an exception, and how a line does that tells of one.
EXC_TYPE = re.compile(rb'"exc_type": ?"([^"\\]{1,155})"')
LINE = re.compile(r"^([A-Za-z_][\w.]*)(?:: |:?$)")

#: How the JSON of a signature begins.
TASK = re.compile(rb'^\{"task": ?"((?:[^"\\]|\\.)*)"')


class NotReadable(str):
    """Stands for a payload that is not shown, and says why."""

    __slots__ = ()


class Readable:
    """Reads payloads of rows for people.

    Args:
        serializer: the one that the app writes with.
    """

    def __init__(self, serializer: str) -> None:
        known = serializer if serializer in ACCEPT else ACCEPT[0]
        self._encoding = Encoding(known, prepare_accept_content(ACCEPT), None)

    def __call__(self, row: Mapping[str, Any], column: str) -> Any:
        """What a column of a row holds, or :class:`NotReadable`; of one that was cut, its beginning as text."""
        payload, size = row.get(column), row.get(f"size_of_{column}")
        if payload is None:
            return None
        if size is not None and size > len(payload):
            return NotReadable(_beginning(bytes(payload), size))
        with caught() as failure:  # whoever can write to the table can put anything there
            return self._encoding.loads(payload, row.get("content_type"))
        error = failure.error
        told = str(error) if isinstance(error, (ContentDisallowed, DecodeError)) else type(error).__name__
        return NotReadable(f"{len(payload)} bytes that are not shown: {told}")


def _beginning(payload: bytes, size: int) -> str:
    text = payload.decode("utf-8", "backslashreplace")
    return f"{text}… ({size} bytes in all)" if text.isprintable() or text[:1] in "[{\"'" else f"{size} bytes"


def raised(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The class of the exception of a row of a list, without its module, and the last line of the traceback."""
    if row["status"] not in states.EXCEPTION_STATES:
        return None, None
    lines = [line for line in (row.get("failure") or "").splitlines() if line.strip()]
    last = lines[-1].strip() if lines else None
    named = EXC_TYPE.search(row.get("kind") or b"")
    if named:
        name = json.loads(b'"' + named[1] + b'"')
    else:
        told = LINE.match(last or "")
        name = told[1] if told else None
    return name and name.rpartition(".")[2], last


def task_of(head: bytes | None) -> str | None:
    """The name of the task of a signature, by the beginning of its JSON; ``None`` if that does not tell."""
    found = TASK.match(head or b"")
    with caught():  # whoever can write to the table can put anything there
        return json.loads(b'"' + found[1] + b'"') if found else None
    return None
