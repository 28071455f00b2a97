"""Payloads are decompressed up to a limit, and what is broken is one kind of error."""

from __future__ import annotations

import sys
import tracemalloc

import pytest
from kombu.compression import compress, encoders, register
from kombu.exceptions import DecodeError

from celery_sql_results import PayloadTooLarge
from celery_sql_results.payload.compression import decompress

METHODS = ["application/x-gzip", "application/x-bz2", "application/x-lzma", "application/x-brotli", "application/zstd"]
ZSTANDARD = "application/zstd by zstandard"
TEXT = b"one two three " * 1000
MB = 1024 * 1024


@pytest.fixture(params=[*METHODS, ZSTANDARD])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each, and zstd once more, as where only the package is installed that kombu before 5.6 needs."""
    if request.param != ZSTANDARD:
        return str(request.param)
    pytest.importorskip("zstandard")  # there is none yet for the newest Python
    for module in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    return "application/zstd"


def test_every_method_of_kombu_is_tested() -> None:
    """Those that are installed; the others come with the extra `test`."""
    assert [method for method in METHODS if method not in encoders()] == []


@pytest.mark.parametrize("limit", [len(TEXT), len(TEXT) + 1, 10 * MB])
def test_round_trip(method: str, limit: int) -> None:
    """Up to the limit, and with it."""
    assert decompress(compress(TEXT, method)[0], method, limit) == TEXT


def test_nothing(method: str) -> None:
    """The empty payload is one too."""
    assert decompress(compress(b"", method)[0], method, 1) == b""


@pytest.mark.parametrize("limit", [1, len(TEXT) - 1])
def test_over_the_limit(method: str, limit: int) -> None:
    """The error names the limit and the setting."""
    with pytest.raises(PayloadTooLarge, match=rf"of more than {limit} bytes.*raise database_max_decompressed_bytes"):
        decompress(compress(TEXT, method)[0], method, limit)


def test_a_bomb_takes_no_memory(method: str) -> None:
    """128 MB of zeros are some kilobytes, and stay about that."""
    bomb = compress(bytes(128 * MB), method)[0]
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            decompress(bomb, method, MB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 64 * MB


@pytest.mark.parametrize("payload", [b"", b"\x00", b"neither of them", None], ids=repr)
def test_broken(method: str, payload: bytes | None) -> None:
    """Also one that ends too early."""
    broken = compress(TEXT, method)[0][:-5] if payload is None else payload
    with pytest.raises(DecodeError, match=method):
        decompress(broken, method)


def test_an_unknown_method() -> None:
    """Or one that is not installed here."""
    with pytest.raises(DecodeError, match="compressed as 'application/x-none'"):
        decompress(TEXT, "application/x-none")


def test_a_method_of_ones_own() -> None:
    """Whoever registers one with kombu, reads with it; the limit still holds for what it returns."""
    register(lambda body: body[::-1], lambda body: body[::-1], "application/x-backwards")

    assert decompress(b"olleh", "application/x-backwards") == b"hello"
    with pytest.raises(PayloadTooLarge):
        decompress(b"olleh", "application/x-backwards", 4)
