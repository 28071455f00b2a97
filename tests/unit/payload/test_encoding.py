"""Payloads: serialized, compressed, read again in the content type that they were written in."""

from __future__ import annotations

import zlib

import pytest
from celery.backends import base
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

from celery_sql_results.payload.encoding import Encoding
from support import CELERY, SERIALIZERS

TYPES = {
    "json": "application/json",
    "pickle": "application/x-python-serialize",
    "yaml": "application/x-yaml",
    "msgpack": "application/x-msgpack",
}
ALL = frozenset(TYPES.values())
JSON = frozenset({TYPES["json"]})
VALUE = {"text": "naïve 東京 🎉", "numbers": [1, 2.5, None, True], "empty": {}}
COMPRESSIONS = ("gzip", "bzip2")
MARK = b"\x00celery-compressed\x00application/x-gzip\x00"

needs_celerys_compression = pytest.mark.skipif(CELERY < (5, 7), reason="Celery compresses results since 5.7")


def encoding(serializer: str = "json", accept: frozenset[str] = ALL, compression: str | None = None) -> Encoding:
    """An encoding that accepts everything unless told otherwise."""
    return Encoding(serializer, accept, compression)


@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_round_trip(serializer: str, compression: str | None) -> None:
    """Every serializer, compressed or not."""
    own = encoding(serializer, compression=compression)

    assert own.loads(own.dumps(VALUE), own.content_type) == VALUE


@pytest.mark.parametrize(("serializer", "expected"), TYPES.items())
def test_content_type(serializer: str, expected: str) -> None:
    """A row names the type that kombu does."""
    assert encoding(serializer).content_type == expected


@pytest.mark.parametrize("reader", SERIALIZERS)
@pytest.mark.parametrize("writer", SERIALIZERS)
def test_a_row_is_read_as_what_it_was_written(writer: str, reader: str) -> None:
    """The setting may have changed since."""
    own = encoding(writer)

    assert encoding(reader).loads(own.dumps(VALUE), own.content_type) == VALUE


@pytest.mark.parametrize("writer", SERIALIZERS)
def test_a_row_of_celery_names_no_type(writer: str) -> None:
    """Then the app's own serializer reads it."""
    own = encoding(writer)

    assert own.loads(own.dumps(VALUE), None) == VALUE


def test_a_row_that_celery_wrote_over_is_read_as_the_apps() -> None:
    """Celery leaves our content type as it was: the payload is not in it any more."""
    assert encoding().loads(b'{"a": 1}', TYPES["msgpack"]) == {"a": 1}


def test_nothing_is_nothing() -> None:
    """NULL has no type."""
    assert encoding(accept=JSON).loads(None, TYPES["json"]) is None


def test_a_type_that_is_not_accepted_is_refused() -> None:
    """The error is about the row's own type, not about the last that was tried."""
    row = encoding("yaml").dumps({"a": 1})

    with pytest.raises(ContentDisallowed, match="yaml"):
        encoding(accept=JSON).loads(row, TYPES["yaml"])


def test_broken_content_is_an_error() -> None:
    """Neither None nor the bytes."""
    with pytest.raises(DecodeError):
        encoding(accept=JSON).loads(b"{broken", TYPES["json"])


def test_a_value_that_cannot_be_serialized_is_an_error() -> None:
    """Celery then stores that error as the task's."""
    with pytest.raises(EncodeError, match="not JSON serializable"):
        encoding(accept=JSON).dumps(object())


def test_a_value_is_serialized_once() -> None:
    """What fails may have been a time limit, or memory, or have used something up."""
    asked = []

    class Value:
        def __json__(self) -> object:
            asked.append(self)
            raise SoftTimeLimitExceeded

    with pytest.raises(EncodeError, match="SoftTimeLimitExceeded"):
        encoding(accept=JSON).dumps(Value())
    assert len(asked) == 1


def test_lenient_falls_back_to_repr() -> None:
    """Arguments only inform: a strange one must not lose the result."""
    payload = encoding().dumps_lenient([set, object])

    assert encoding().loads(payload) == repr([set, object])


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_lone_surrogates_are_stored(serializer: str) -> None:
    """A result that no database could take as text comes back with them, or with what Python writes for them."""
    own = encoding(serializer)

    assert own.loads(own.dumps_lenient(["a\ud83d"]), own.content_type) in (["a\ud83d"], ["a\\ud83d"], "['a\\ud83d']")


@needs_celerys_compression
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_celery_reads_our_compression(compression: str) -> None:
    """The mark in front of the payload is Celery's."""
    payload = encoding(compression=compression).dumps(VALUE)

    assert encoding().loads(base.decompress_payload(payload)) == VALUE


@needs_celerys_compression
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_we_read_celerys_compression(compression: str) -> None:
    """Also when this app does not compress."""
    payload = base.compress_payload(encoding().dumps(VALUE), compression)

    assert encoding(accept=JSON).loads(payload, TYPES["json"]) == VALUE


def test_compression_makes_it_smaller() -> None:
    """The payload really is compressed, behind the mark."""
    payload = encoding(compression="gzip").dumps("a" * 10_000)
    mark, body = payload[: len(MARK)], payload[len(MARK) :]

    assert (mark, zlib.decompress(body)) == (MARK, b'"' + b"a" * 10_000 + b'"')
    assert len(payload) < 200


def test_msgpack_of_one_byte_is_no_pickle() -> None:
    """An empty map of msgpack is the byte that a pickle begins with."""
    own = encoding("msgpack")
    payload = own.dumps({})

    assert (payload, own.loads(payload, own.content_type)) == (b"\x80", {})


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_without_the_private_names_of_kombu(monkeypatch: pytest.MonkeyPatch, serializer: str) -> None:
    """Its public functions do the same."""
    quick = encoding(serializer)
    monkeypatch.setattr("celery_sql_results.payload.encoding.private", lambda name: None)
    slow = encoding(serializer)

    assert (slow.content_type, slow.dumps(VALUE)) == (quick.content_type, quick.dumps(VALUE))
    assert [slow.loads(quick.dumps(VALUE)), quick.loads(slow.dumps(VALUE))] == [VALUE, VALUE]
    with pytest.raises(EncodeError):
        slow.dumps(lambda: 1)
