"""Repairing text: what no column takes is escaped, what is too long is clipped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_sql_results.payload.text import name, text

ANY_TEXT = st.text(st.characters(codec=None, categories=None))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", ""),
        ("plain", "plain"),
        ("naïve 東京 🎉", "naïve 東京 🎉"),
        ("a\x00b", "a\\x00b"),
        ("\x00\x00", "\\x00\\x00"),
        ("lone \ud83d here", "lone \\ud83d here"),
        ("\udcff", "\\udcff"),
        ("ö\x00\ud800", "ö\\x00\\ud800"),
        (KeyError("k"), "'k'"),
    ],
)
def test_text(value: object, expected: str | None) -> None:
    """NUL and lone surrogates are shown as Python writes them."""
    assert text(value) == expected  # type: ignore[arg-type]


@given(value=ANY_TEXT)
def test_text_is_always_storable(value: str) -> None:
    """Whatever comes in, UTF-8 without NUL goes out."""
    repaired = text(value) or ""

    assert repaired.encode("utf-8").decode("utf-8") == repaired
    assert "\x00" not in repaired


@given(value=st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"])))
def test_text_keeps_what_can_be_stored(value: str) -> None:
    """Nothing is changed without need."""
    assert text(value) == value


@given(value=ANY_TEXT, longest=st.none() | st.integers(0, 9))
def test_ascii_is_taken_by_every_character_set(value: str, longest: int | None) -> None:
    """What Python would show, clipped after it was escaped; plain text as it is."""
    found = text(value, longest, ascii=True) or ""
    shown = "".join(each if each.isascii() and each != "\x00" else ascii(each)[1:-1] for each in value)

    assert found == shown[:longest]
    assert (found.isascii(), "\x00" in found) == (True, False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("n" * 155, "n" * 155),
        ("n" * 300, "n" * 155),
        ("🎉" * 300, "🎉" * 155),
        ("\x00" * 155, ("\\x00" * 39)[:155]),
    ],
)
def test_name_fits_its_column(value: str | None, expected: str | None) -> None:
    """A name is clipped after it was repaired, in characters."""
    assert name(value) == expected
