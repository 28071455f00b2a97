"""Ids: whatever Celery accepts is text; what no column can hold is an error, or unknown."""

from __future__ import annotations

from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_sql_results import TaskIdInvalid, TaskIdTooLong
from celery_sql_results.ids import LONGEST, as_text, asked_id, stored_id
from celery_sql_results.models import NAME_LENGTH

ANY_TEXT = st.text(st.characters(codec=None, categories=None))
GOOD_TEXT = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=LONGEST)
A_UUID = UUID("0b9c3f5e-7d1a-4a53-9e0e-2f6f5a0c8d11")


class Text(str):
    """A subclass, whose text is shown otherwise."""

    def __str__(self) -> str:
        return "something else"


class Key(str, Enum):
    """Ids that somebody has listed."""

    DAILY = "daily-report"


class Order:
    """Anything that has a text."""

    def __str__(self) -> str:
        return "order-7"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("t", "t"),
        (" t", " t"),
        ("naïve 東京 🎉", "naïve 東京 🎉"),
        ("🎉" * 155, "🎉" * 155),
        (A_UUID, "0b9c3f5e-7d1a-4a53-9e0e-2f6f5a0c8d11"),
        (Text("t"), "t"),
        (Key.DAILY, "daily-report"),
        (Order(), "order-7"),
        (7, "7"),
        (b"t\xc3\xa4", "tä"),
        (memoryview(b"t"), "t"),
    ],
)
def test_an_id(value: object, expected: str) -> None:
    """A `str` and no subclass, whichever door it comes through."""
    found = [as_text(value), asked_id(value), stored_id("task", value)]

    assert found == [expected] * 3
    assert {type(each) for each in found} == {str}


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, TaskIdInvalid, r"the task id is None: give it one"),
        ("", TaskIdInvalid, r"the task id is '': give it one"),
        ("  ", TaskIdInvalid, r"the task id is '  ': give it one"),
        ("a\x00b", TaskIdInvalid, r"the task id 'a\\x00b' holds NUL, which no column can: choose another"),
        (Text("\x00"), TaskIdInvalid, r"the task id '\\x00' holds NUL, .*"),
        ("\ud83d", TaskIdInvalid, r"the task id '\\ud83d' holds a lone surrogate, .*"),
        (b"\xff\xfe", TaskIdInvalid, r"the task id '\\udcff\\udcfe' holds a lone surrogate, .*"),
        ("t" * 156, TaskIdTooLong, r"the task id 't{40}'… has 156 characters, but the column holds 155: .*"),
        ("é" * 156, TaskIdTooLong, r"the task id '(\\xe9){40}'… has 156 characters, .*"),
        ("\x00" * 10**6, TaskIdTooLong, r"the task id '(\\x00){40}'… has 1000000 characters, .*"),
        (A_UUID.hex * 5, TaskIdTooLong, r"the task id '0b9c.*'… has 160 characters, .*"),
    ],
    ids=[
        "None",
        "empty",
        "blank",
        "NUL",
        "NUL in a subclass",
        "surrogate",
        "bytes",
        "long",
        "long accents",
        "long NUL",
        "long hex",
    ],
)
def test_what_no_column_can_hold(value: object, error: type[TaskIdInvalid], message: str) -> None:
    """Unknown to whoever asks, and an error of one line in ASCII for whoever stores."""
    with pytest.raises(TaskIdInvalid, match=f"^{message}$") as told:
        stored_id("task", value)

    assert (asked_id(value), type(told.value), len(str(told.value)) < 300) == (None, error, True)


@given(value=ANY_TEXT)
def test_any_text_is_held_as_it_is_or_refused(value: str) -> None:
    """Nothing is changed on the way, and what gets through is UTF-8 without NUL that fits."""
    found = asked_id(value)
    good = "\x00" not in value and len(value) <= LONGEST and not any("\ud800" <= each <= "\udfff" for each in value)
    good = good and value.strip(" ") != ""

    assert found == (value if good else None)


@given(value=GOOD_TEXT.filter(lambda text: text.strip(" ")) | st.uuids() | st.integers() | st.sampled_from(Key))
def test_both_doors_agree(value: object) -> None:
    """What was stored under an id is found under it, and an id that has been through a door stays what it is."""
    stored = stored_id("task", value)

    assert (asked_id(value), asked_id(stored), stored_id("group", stored)) == (stored, stored, stored)


@given(value=st.binary(max_size=200))
def test_bytes_are_utf_8_or_refused(value: bytes) -> None:
    """No two different ones are taken for the same id."""
    found = asked_id(value)

    assert found is None or found.encode() == value


def test_the_width_is_that_of_the_columns() -> None:
    """Said in two places, because ids are below the tables."""
    assert LONGEST == NAME_LENGTH
