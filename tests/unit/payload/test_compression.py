"""Payloads are decompressed up to a limit, and what is broken is one kind of error."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator

import kombu.compression
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
        decompress(broken, method, MB)


def test_an_unknown_method() -> None:
    """Or one that is not installed here."""
    with pytest.raises(DecodeError, match="compressed as 'application/x-none'"):
        decompress(TEXT, "application/x-none", MB)


@pytest.mark.parametrize("alias", ["gzip", "zlib", "bzip2", "bzip", "lzma", "xz", "brotli", "zstd", "zstandard"])
def test_other_names_of_a_method(alias: str) -> None:
    """Kombu decompresses by them too, without a limit."""
    bomb = compress(bytes(64 * MB), alias)[0]

    assert decompress(compress(TEXT, alias)[0], alias, len(TEXT)) == TEXT
    with pytest.raises(PayloadTooLarge):
        decompress(bomb, alias, MB)


@pytest.fixture
def backwards() -> Iterator[str]:
    """A method that somebody has registered with kombu."""
    register(lambda body: body[::-1], lambda body: body[::-1], "application/x-backwards", ["backwards"])
    yield "application/x-backwards"
    for known in (kombu.compression._encoders, kombu.compression._decoders):
        del known["application/x-backwards"]
    del kombu.compression._aliases["backwards"]


@pytest.mark.parametrize("own", ["application/x-backwards", "backwards"])
def test_a_method_of_ones_own(backwards: str, own: str) -> None:
    """Whoever writes with it, reads with it; the limit still holds for what it returns."""
    assert decompress(b"olleh", backwards, MB, own) == b"hello"
    with pytest.raises(PayloadTooLarge):
        decompress(b"olleh", backwards, 4, own)


@pytest.mark.parametrize("name", ["application/x-backwards", "backwards"])
def test_a_method_of_somebody_else(backwards: str, name: str) -> None:
    """Nobody knows how it could be kept within a limit."""
    with pytest.raises(DecodeError, match="cannot be decompressed within a limit"):
        decompress(b"olleh", name, MB, "gzip")
