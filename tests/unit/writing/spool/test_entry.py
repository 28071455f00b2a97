"""Entries as files: what is read is what was kept, and nothing else is read."""

from __future__ import annotations

import json
import pickle
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_sql_results.models import TASK_COLUMNS, models_for
from celery_sql_results.writing import GROUP, PART, TASK, Entry
from celery_sql_results.writing.spool.files import Unreadable, dumps, loads

MODELS = models_for()
TEXT = st.none() | st.text()
BYTES = st.none() | st.binary()
NAMES = st.text(max_size=155)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
IDS = st.text(CHARACTERS, min_size=1, max_size=155).filter(lambda text: text.strip(" "))
TIMES = st.none() | st.datetimes()
CONTENT = {"status": st.text(max_size=50), "result": BYTES, "content_type": st.none() | NAMES}
ALWAYS = {"task_id": IDS, "date_done": TIMES, "traceback": TEXT, "children": BYTES, **CONTENT}
EXTENDED = {"retries": st.none() | st.integers(), "args": BYTES, "date_started": TIMES, "queue": NAMES}
TASK_ROWS = st.fixed_dictionaries(ALWAYS, optional=EXTENDED)
PARTS = st.none() | st.fixed_dictionaries({"group_id": IDS, "task_id": IDS, "position": st.integers(), **CONTENT})
TYPE = {"content_type": "application/json"}
KEPT = {"version": 1, "kind": TASK, "row": {"task_id": "t", "status": "SUCCESS"}}


@given(TASK_ROWS, PARTS)
def test_what_is_read_is_what_was_kept(row: dict[str, Any], part: dict[str, Any] | None) -> None:
    """Each value with its type."""
    assert loads(dumps(Entry(TASK, row, part)), MODELS) == Entry(TASK, row, part)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(PART, {"group_id": "g", "task_id": "t", "position": 0, "status": "FAILURE", "result": b"1", **TYPE}),
        Entry(GROUP, {"taskset_id": "g", "result": b"\x00\xff", "date_done": datetime(2026, 1, 2, 3, 4, 5, 6), **TYPE}),
    ],
)
def test_every_kind(entry: Entry) -> None:
    """Parts of chords and groups as well."""
    assert loads(dumps(entry), MODELS) == entry


def with_row(**columns: Any) -> bytes:
    """An entry whose row has these columns as well."""
    return json.dumps({**KEPT, "row": {"task_id": "t", "status": "SUCCESS", **columns}}).encode()


HOSTILE = {
    "nothing": b"",
    "cut off": json.dumps(KEPT).encode()[:-1],
    "a pickle": pickle.dumps(KEPT),
    "deep": b"[" * 100_000,
    "no object": b"[]",
    "another version": json.dumps({**KEPT, "version": 2}).encode(),
    "another kind": json.dumps({**KEPT, "kind": "code"}).encode(),
    "a kind that is no text": json.dumps({**KEPT, "kind": ["task"]}).encode(),
    "no row": json.dumps({**KEPT, "row": None}).encode(),
    "no part": json.dumps({**KEPT, "part": {"group_id": "g"}}).encode(),
    "a part that is false": json.dumps({**KEPT, "part": False}).encode(),
    "no id": json.dumps({**KEPT, "row": {"status": "SUCCESS"}}).encode(),
    "no state": with_row(status=None),
    "an unknown column": with_row(password="x"),
    "the primary key": with_row(id=1),
    "a wrong type": with_row(result="text"),
    "a truth for a number": with_row(retries=True),
    "a long id": with_row(task_id="t" * 156),
    "a long state": with_row(status="S" * 51),
    "a list": with_row(traceback=["x"]),
    "an unknown tag": with_row(result={"pickle": "gASVBAAAAAAAAACMAWGULg=="}),
    "two tags": with_row(result={"bytes": "", "time": ""}),
    "no base64": with_row(result={"bytes": "§"}),
    "bytes of a number": with_row(result={"bytes": 7}),
    "no time": with_row(date_done={"time": "tomorrow"}),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_else_is_read(data: bytes) -> None:
    """One kind of error, whatever it is."""
    with pytest.raises(Unreadable):
        loads(data, MODELS)


def test_the_error_shows_no_content() -> None:
    """It goes to a log."""
    with pytest.raises(Unreadable) as caught:
        loads(with_row(date_done={"time": "secret"}), MODELS)

    assert "secret" not in str(caught.value)


def test_columns_that_an_older_release_did_not_write_are_null() -> None:
    """So that what waits survives an upgrade."""
    expected = {**dict.fromkeys(TASK_COLUMNS), "task_id": "t", "status": "SUCCESS"}

    assert loads(json.dumps(KEPT).encode(), MODELS) == Entry(TASK, expected)
