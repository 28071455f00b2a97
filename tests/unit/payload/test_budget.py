"""What a row may come to when it is read: hostile ones are one error, at once; honest ones are read, however large."""

from __future__ import annotations

import json
import pickle
import random
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
import yaml
from kombu.compression import compress
from kombu.exceptions import ContentDisallowed, DecodeError

from celery_sql_results import PayloadTooLarge
from celery_sql_results.payload import bounded_repr
from celery_sql_results.payload.encoding import COMPRESSED, Encoding

JSON, YAML, MSGPACK = "application/json", "application/x-yaml", "application/x-msgpack"
MB = 1024 * 1024
#: A size, and the end of a pickle.
HUGE = (3 * 10**9).to_bytes(8, "little") + b"."
#: Seconds of the processor that it may take to refuse a row: 0.1 are promised, other processes slow this one down, and
#: what is not refused takes minutes.
SECONDS = 0.5


def encoding(limit: int | None = None, accept: str = JSON) -> Encoding:
    """Reads JSON, and another type."""
    return Encoding("json", frozenset({JSON, accept}), None, limit)


def packed(data: bytes, method: str = "gzip", name: str | None = None) -> bytes:
    """A payload as it is stored compressed, under any name."""
    body, content_type = compress(data, method)
    return COMPRESSED + (name or content_type).encode() + b"\x00" + body


#: A collection that holds the one under number `a` twice, and is remembered under number `b`.
TUPLE, LIST, DICT = b"(h%(a)ch%(a)ctq%(b)c", b"](h%(a)ch%(a)ceq%(b)c", b"}(Kah%(a)cKbh%(a)cuq%(b)c"


def shared(level: bytes, levels: int = 60) -> bytes:
    """A pickle of collections, each of which holds the one before it twice: 2 to the power of `levels` in all."""
    return b"\x80\x02)q\x00" + b"".join(level % {b"a": n, b"b": n + 1} for n in range(levels)) + b"."


def laughs(each: str) -> bytes:
    """YAML of nine aliases for nine aliases for nine aliases."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} " + each % ", ".join([f"*a{n - 1}"] * 9) for n in range(1, 20)]
    return "\n".join(lines).encode()


def keys(number: int) -> bytes:
    """A pickle of keys that have all the same hash."""
    alike = [(2**61 - 1) * each for each in range(1, number)]
    return pickle.dumps(dict.fromkeys(alike), 4) if number < 100 else b"\x80\x02}(" + b"".join(map(_key, alike)) + b"u."


def _key(number: int) -> bytes:
    return b"\x8a\x0a" + number.to_bytes(10, "little") + b"N"


HOSTILE: dict[str, tuple[Callable[[], bytes], str, type[Exception]]] = {
    "shared tuples": (lambda: shared(TUPLE), JSON, PayloadTooLarge),
    "shared lists": (lambda: shared(LIST), JSON, PayloadTooLarge),
    "shared dicts": (lambda: shared(DICT), JSON, PayloadTooLarge),
    "shared keys": (lambda: shared(TUPLE, 18)[:-1] + b"}(" + b"h\x11N" * 10_000 + b"u.", JSON, DecodeError),
    "a long text, many times": (lambda: pickle.dumps(["x" * 10**5] * 10**5, 4), JSON, PayloadTooLarge),
    "a list in itself": (lambda: b"\x80\x02]q\x00h\x00a.", JSON, DecodeError),
    "a dict in itself": (lambda: b"\x80\x02}q\x00Nh\x00s.", JSON, DecodeError),
    "an extension of copyreg": (lambda: b"\x80\x02\x82\x01.", JSON, ContentDisallowed),
    "an extension of four bytes": (lambda: b"\x80\x02\x84\x01\x00\x00\x00.", JSON, ContentDisallowed),
    "a byte array of 3 GB": (
        lambda: b"\x80\x05\x96" + (3 * 10**9).to_bytes(8, "little") + b".",
        JSON,
        ContentDisallowed,
    ),
    "a text of 3 GB": (lambda: b"\x80\x04\x8d" + HUGE, JSON, DecodeError),
    "a text that goes back": (lambda: b"\x80\x02X\xfb\xff\xff\xff.", JSON, DecodeError),
    "a buffer from outside": (lambda: b"\x80\x05\x97.", JSON, ContentDisallowed),
    "a persistent id": (lambda: b"\x80\x02Pa\n.", JSON, ContentDisallowed),
    "a memo of 2 billion": (lambda: b"\x80\x02Nr\xff\xff\xff\x7f", JSON, DecodeError),
    "a tuple 200,000 deep as a key": (lambda: b"\x80\x04})" + b"\x85" * 200_000 + b"Ns.", JSON, DecodeError),
    "lists 1,000 deep": (lambda: b"\x80\x04" + b"]" * 1000 + b"a" * 999 + b".", JSON, DecodeError),
    "keys of one hash": (lambda: keys(20_000), JSON, DecodeError),
    "an alias of gzip": (lambda: packed(bytes(64 * MB), "gzip", "gzip"), JSON, PayloadTooLarge),
    "an alias of xz": (lambda: packed(bytes(64 * MB), "lzma", "xz"), JSON, PayloadTooLarge),
    "26 kB of lists": (lambda: packed(b"[" + b"[]," * 8_000_000 + b"[]]"), JSON, PayloadTooLarge),
    "lists within the limit": (lambda: packed(b"[" + b"[]," * 2_500_000 + b"[]]"), JSON, PayloadTooLarge),
    "dicts within the limit": (lambda: packed(b"[" + b'{"":0},' * 1_000_000 + b"[]]"), JSON, PayloadTooLarge),
    "many lists of msgpack": (lambda: packed(b"\xdd\x00\x7f\xff\xff" + b"\x90" * 8_000_000), MSGPACK, PayloadTooLarge),
    "much YAML": (lambda: packed(b"- a\n" * 1_000_000), YAML, PayloadTooLarge),
    "aliases of YAML": (lambda: laughs("[%s]"), YAML, PayloadTooLarge),
    "mappings that YAML merges": (lambda: laughs("{<<: [%s]}"), YAML, PayloadTooLarge),
    "a list of YAML in itself": (lambda: b"&a [*a]", YAML, PayloadTooLarge),
    "YAML in 300 brackets": (lambda: b"[" * 300 + b"a, " * 10_000 + b"]" * 300, YAML, DecodeError),
    "a long time": (
        lambda: json.dumps({"__type__": "datetime", "__value__": "x" * 20_000}).encode(),
        JSON,
        DecodeError,
    ),
    "a type that nobody knows": (
        lambda: b'{"__type__": "x", "__value__": "' + b"x" * 20_000 + b'"}',
        JSON,
        DecodeError,
    ),
    "a class with a long name": (lambda: b"\x80\x02c" + b"x" * 10**5 + b"\ny\n.", JSON, (DecodeError)),
}


@pytest.mark.parametrize(("make", "content_type", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_hostile(make: Callable[[], bytes], content_type: str, expected: type[Exception]) -> None:
    """One error of that class, in little time, and with a short message."""
    payload, own = make(), encoding(accept=content_type)
    began = time.thread_time()
    with pytest.raises((ContentDisallowed, DecodeError)) as told:
        own.loads(payload, content_type)
    seconds = time.thread_time() - began

    assert (type(told.value), seconds < SECONDS, len(f"{told.value}{told.value!r}") < 5000) == (expected, True, True)


def test_one_budget_for_a_row() -> None:
    """What each of its payloads may come to by itself, they may not all."""
    half = packed(json.dumps("x" * 5 * MB).encode())
    row = {"task_id": "t", "status": "SUCCESS", "result": half, "content_type": JSON, "args": half, "kwargs": half}
    meta = encoding().to_meta(row)

    assert (len(meta["result"]), meta["args"], meta["kwargs"]) == (5 * MB, None, None)


SHARED = [1, "two"]
HONEST: dict[str, Callable[[], Any]] = {
    "a million numbers": lambda: [*range(10**6)],
    "a million zeros": lambda: [0] * 10**6,
    "20,000 dicts": lambda: [{"id": number, "name": f"number {number}"} for number in range(20_000)],
    "a long text": lambda: "to be or not to be, " * 200_000,
    "a long text in another script": lambda: "東京" * 200_000,
    "what is there twice": lambda: {"a": [SHARED, SHARED], "b": [SHARED] * 1000},
    "300 deep": lambda: json.loads("[" * 300 + "]" * 300),
}


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST)
def test_honest(make: Callable[[], Any]) -> None:
    """Large, shared or deep: as it is, compressed, as a pickle of an older release, and in msgpack."""
    own, value = encoding(accept=MSGPACK), make()
    dumped = json.dumps(value).encode()
    payloads = [(dumped, JSON), (packed(dumped), JSON)]
    payloads += [
        (pickle.dumps(value, 4), JSON),
        (msgpack.packb(value), MSGPACK),
        (packed(msgpack.packb(value)), MSGPACK),
    ]

    assert [own.loads(payload, of) == value for payload, of in payloads] == [True] * len(payloads)


@pytest.mark.parametrize(
    "text", ["- &a [1]\n- *a", "a: &a {x: 1}\nb: {<<: *a, y: 2}", "a: '*bold* & more'", 'a: "' + "\\e[1m" * 100 + '"']
)
def test_honest_yaml(text: str) -> None:
    """Its aliases are what `yaml.dump` writes of what is there twice."""
    assert encoding(accept=YAML).loads(text.encode(), YAML) == yaml.safe_load(text)


def test_much_that_is_stored() -> None:
    """30 MB, of which compression leaves a sixtieth."""
    chance = random.Random(0)
    value = "".join(chance.randbytes(500).hex() * 50 for _ in range(600))
    payload = packed(json.dumps(value).encode())

    assert 50 < len(value) / len(payload) < 100
    assert encoding().loads(payload, JSON) == value


def test_the_setting_says_how_much() -> None:
    """Both ways: what would be refused is read, and what would be read is refused."""
    payload = packed(json.dumps("x" * 20 * MB).encode())
    with pytest.raises(PayloadTooLarge, match="raise database_max_decompressed_bytes"):
        encoding().loads(payload, JSON)

    assert encoding(21 * MB).loads(payload, JSON) == "x" * 20 * MB
    with pytest.raises(PayloadTooLarge):
        encoding(MB).loads(packed(json.dumps("x" * 2 * MB).encode()), JSON)


def test_no_memory_is_taken_for_what_is_refused() -> None:
    """The limit of what is decompressed, twice: it arrives in pieces."""
    payload, own = packed(b"[" + b"[]," * 20_000_000 + b"[]]"), encoding()
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            own.loads(payload, JSON)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 50 * MB


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ValueError("no", 1), "ValueError('no', 1)"),
        ({"a": [1, "b"]}, "{'a': [1, 'b']}"),
        (["x"] * 10**6, "['x', 'x', 'x', 'x', 'x', 'x', ...]"),
        (ValueError(["x"] * 10**6), "ValueError(['x', 'x', 'x', 'x', 'x', 'x', ...]…)"),
    ],
    ids=["an exception", "a dict", "a long list", "an exception with a long list"],
)
def test_bounded_repr(value: object, expected: str) -> None:
    """What is short as it is, what is long by its beginning."""
    assert bounded_repr(value) == expected


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, dict.fromkeys(range(10**4)), 10**5000, [[[["x" * 10**6]]]]],
    ids=["text", "dict", "number", "lists"],
)
def test_a_repr_is_bounded(value: object) -> None:
    """Whatever is to be shown, also in an exception in an exception."""
    assert [len(bounded_repr(each)) < 1200 for each in (value, ValueError(value), ValueError(KeyError(value)))] == [
        True
    ] * 3
