"""What was found by fuzzing, and what is like it, is read again by each run of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz import entries, rows
from support import close

CORPUS = Path(__file__).parent / "corpus"


def found(target: str) -> list[Path]:
    """The files of a target."""
    return sorted((CORPUS / target).iterdir())


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    """The backend of the rows is closed in the end."""
    yield
    close(rows.backend())
    rows.backend.cache_clear()


@pytest.mark.parametrize("path", found("rows"), ids=lambda path: path.name)
def test_rows(path: Path) -> None:
    """A value, or one of a few errors."""
    rows.read(path.read_bytes())


@pytest.mark.parametrize("path", found("entries"), ids=lambda path: path.name)
def test_entries(path: Path) -> None:
    """One that could be stored, or unreadable."""
    entries.read(path.read_bytes())
