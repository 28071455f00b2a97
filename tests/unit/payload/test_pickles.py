"""Pickled rows of older releases: plain ones are read, and nothing that a pickle names is ever called."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import ContentDisallowed, DecodeError

from celery_sql_results.payload.encoding import Encoding

JSON = Encoding("json", frozenset({"application/json"}), None)
PICKLE = Encoding("pickle", frozenset({"application/x-python-serialize"}), "gzip")
NESTED = {"text": "naïve 東京 🎉", "numbers": [1, 2.5, None, True], "empty": {}}


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Refused(pickle.Pickler):
    """Pickles by reference to something outside."""

    def persistent_id(self, obj: Any) -> Any:
        return "outside" if obj == "outside" else None


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", [NESTED, (1, ("two", [3])), 2**80, -1.5, "", None, True])
def test_plain_pickles_are_read_without_accepting_pickle(value: Any, protocol: int) -> None:
    """Celery before 5.7 pickled every result."""
    assert JSON.loads(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("value", [b"\x00\xff", {3, 4}, frozenset({"a"})])
def test_sets_and_bytes_are_plain_since_protocol_4(value: Any, protocol: int) -> None:
    """Before it, a pickle makes them by calling their class; Celery writes 4 since Python 3.8."""
    assert JSON.loads(pickle.dumps(value, protocol)) == value


def test_a_pickle_that_names_a_function_is_refused_and_not_run(tmp_path: Path) -> None:
    """The error names the function and the setting."""
    payload = pickle.dumps(Evil(tmp_path / "made"))

    with pytest.raises(ContentDisallowed, match=r"posix\.mkdir.*result_accept_content"):
        JSON.loads(payload)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hidden", [[{"a": None}], (None,), {"b": {"c": None}}])
def test_a_function_is_found_however_deep(tmp_path: Path, hidden: Any) -> None:
    """Nothing runs before it is refused."""
    text = pickle.dumps(hidden).replace(b"N", pickle.dumps(Evil(tmp_path / "made"))[2:-1], 1)

    with pytest.raises((ContentDisallowed, DecodeError)):
        JSON.loads(text)

    assert list(tmp_path.iterdir()) == []


def test_a_pickle_with_references_is_refused() -> None:
    """Those are for a program that we do not know."""
    buffer = io.BytesIO()
    Refused(buffer).dump(["outside"])

    with pytest.raises(ContentDisallowed, match="outside of it"):
        JSON.loads(buffer.getvalue())


@pytest.fixture
def known() -> Iterator[int]:
    """A function that `copyreg` knows by a number, and has found before."""
    number = 0x7E
    copyreg.add_extension("os", "mkdir", number)
    pickle.loads(b"\x80\x02\x82\x7e.")
    yield number
    copyreg.remove_extension("os", "mkdir", number)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("opcode", [b"\x82\x7e", b"\x83\x7e\x00", b"\x84\x7e\x00\x00\x00"], ids=["1", "2", "4"])
def test_what_copyreg_knows_is_not_found(known: int, opcode: bytes, tmp_path: Path) -> None:
    """Python's own unpickler asks nobody for it, and calls it."""
    path = str(tmp_path / "made").encode()
    payload = b"\x80\x04" + opcode + b"\x8c%c" % len(path) + path + b"\x85R."

    with pytest.raises(ContentDisallowed):
        JSON.loads(payload)

    assert list(tmp_path.iterdir()) == []


def test_a_broken_pickle_is_an_error_of_content() -> None:
    """Whatever the unpickler stumbles over."""
    with pytest.raises(DecodeError, match="begins like a pickle"):
        JSON.loads(pickle.dumps(NESTED)[:-5])


def test_pickles_are_read_where_pickle_is_accepted(tmp_path: Path) -> None:
    """Then it runs what it names: that is what the setting says."""
    PICKLE.loads(pickle.dumps(Evil(tmp_path / "made")))

    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_compressed_pickle_is_as_unsafe(tmp_path: Path) -> None:
    """Compression does not hide it."""
    payload = PICKLE.dumps(Evil(tmp_path / "made"))

    with pytest.raises(ContentDisallowed):
        JSON.loads(payload, PICKLE.content_type)

    assert list(tmp_path.iterdir()) == []
