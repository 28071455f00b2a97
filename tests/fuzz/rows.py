"""Rows of each table that anybody has put there: what is read of one is a value, or one of a few errors."""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from celery import states
from celery.exceptions import ChordError, SecurityError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import result_from_tuple
from kombu.exceptions import ContentDisallowed, DecodeError

from celery_sql_results import DatabaseBackend
from celery_sql_results.chords import Join
from celery_sql_results.payload import bounded_repr
from celery_sql_results.schema.found import look
from support import app_on

#: What a reader may meet in a row that he cannot trust.
ALLOWED = (ContentDisallowed, DecodeError, SecurityError, ChordError, CeleryTimeoutError)
#: Characters that a message may have: it shows no more than the beginning of a value.
LONGEST = 5000
STATES = ("SUCCESS", "FAILURE", "RETRY", "REVOKED", "STARTED", "PENDING", "PROGRESS", "")
TYPES = ("application/json", "application/x-yaml", "application/x-msgpack", "application/x-python-serialize", None)
PAYLOADS = ("result", "children", "args", "kwargs", "stamps")


@cache
def backend() -> DatabaseBackend:
    """Reads everything but objects of pickles, from a database in memory."""
    made = app_on(
        "sqlite://",
        result_extended=True,
        accept_content=["json", "yaml", "msgpack"],
        result_chord_join_timeout=0.0,
        database_upkeep_interval=0,
    ).backend
    made.store_result("first", 1, states.SUCCESS)
    return made


def read(data: bytes) -> None:
    """Put one row, and read it. Its table, state, type and column are the first four bytes, its payload the rest.

    Raises:
        whatever no reader should meet.
    """
    table, state, of, column = (data[:4] + bytes(4))[:4]
    row = {"status": STATES[state % len(STATES)], "content_type": TYPES[of % len(TYPES)]}
    reader = READERS[table % len(READERS)]
    try:
        found = reader(row, PAYLOADS[column % len(PAYLOADS)], data[4:])
    except ALLOWED as error:
        found = error
    if isinstance(found, ALLOWED):
        assert len(f"{found}{found!r}") < LONGEST, "the message is long"
    assert len(bounded_repr(found)) < LONGEST, "a value is shown at length"


def _task(row: dict[str, Any], column: str, payload: bytes) -> Any:
    _put("celery_taskmeta", {"id": 7, "task_id": "t", "result": b"1", **row, column: payload})
    meta = backend().get_task_meta("t", cache=False)
    assert meta["status"] == row["status"]
    for child in meta["children"] or ():
        bounded_repr(result_from_tuple(child, backend().app).as_tuple())
    return meta["result"]


def _group(row: dict[str, Any], column: str, payload: bytes) -> Any:
    _put("celery_tasksetmeta", {"id": 7, "taskset_id": "g", "content_type": row["content_type"], "result": payload})
    found = backend().restore_group("g", cache=False)
    return found and found.as_tuple()


def _header(row: dict[str, Any], column: str, payload: bytes) -> Any:
    """Of a chord all of whose parts have returned: whoever hands over reads it, and the values of the parts."""
    part = {"task_id": "t", "status": row["status"], "result": b"1", "content_type": row["content_type"]}
    return _joined({**row, "header": payload}, part)


def _part(row: dict[str, Any], column: str, payload: bytes) -> Any:
    return _joined({**row, "header": None}, {"task_id": "t", "result": payload, **row})


def _joined(row: dict[str, Any], part: dict[str, Any]) -> Any:
    _put_chord(size=1, content_type=row["content_type"], header=row["header"])
    chord = backend().database.rows.chords.look("g")
    return Join(backend().app, backend()._services.encoding)(chord, [part])


def _members(row: dict[str, Any], column: str, payload: bytes) -> Any:
    """Of a chord that waits for its parts: the upkeep reads them."""
    _put_chord(size=2, content_type=row["content_type"], members=payload)
    return backend().sweep_chords()


def _body(row: dict[str, Any], column: str, payload: bytes) -> Any:
    """Of a chord that is complete: the upkeep reads what it is to send, or to let fail."""
    of = "body" if column in ("result", "children") else "bare_body"
    _put_chord(size=0, content_type=row["content_type"], **{of: payload})
    rows = backend().database.rows.chords
    backend()._services.chords._hand_over.take_over(rows.look("g"))
    return rows.look("g").body  # it is closed, whatever it was


def _version(row: dict[str, Any], column: str, payload: bytes) -> Any:
    """Of the tables: whoever starts takes what he does not know for that of a release to come."""
    of_text = payload.decode(errors="replace")
    _put("celery_taskmeta_version", {"version_num": payload if column == "result" else of_text})
    with backend().database.engine.connect() as connection:
        found = look(connection, backend().database.models)
    return found.is_done, found.is_ahead


READERS = (_task, _group, _part, _header, _members, _body, _version)


def _put_chord(**columns: Any) -> None:
    _put("celery_taskmeta_chords", {"group_id": "g", "date_created": "2026-01-01 00:00:00.000000", **columns})


def _put(table: str, row: dict[str, Any]) -> None:
    """Write a row past the backend, as a stranger does."""
    names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    with backend().database.engine.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM {table}"))
        connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({places})"), row)
