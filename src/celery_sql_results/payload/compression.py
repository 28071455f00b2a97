"""Undo kombu's compressions, up to a limit: a small payload must not fill the memory of whoever reads it."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from kombu.compression import get_decoder, get_encoder
from kombu.exceptions import DecodeError

from celery_sql_results.boundaries import caught
from celery_sql_results.errors import PayloadTooLarge

from .text import bounded_repr

__all__ = ["decompress"]

#: Bytes that a decompressor may take for itself, on top: xz's strongest preset needs 65 MB.
OWN_MEMORY = 128 * 1024 * 1024
#: Bytes that are handed at once to a brotli that knows no limit: four may become 16 MB.
BITE = 4

Decompress = Callable[[bytes, int], bytes]


def decompress(body: bytes, method: str, limit: int, own: str | None = None) -> bytes:
    """Decompress ``body``, a payload that kombu's ``method`` has compressed.

    Args:
        body: the payload.
        method: a content type of kombu's, or another name that kombu has for it.
        limit: bytes that the payload may come to.
        own: the method that the app itself writes with. Of those that somebody has registered, this alone is read: how
            they could be kept within a limit is not known.

    Raises:
        PayloadTooLarge: it would take more than ``limit`` bytes; no more are allocated.
        kombu.exceptions.DecodeError: the method is unknown or not installed here, or the payload is broken.
    """
    known, data = _content_type(method), b""
    if known not in _METHODS and known != _content_type(own or ""):
        raise DecodeError(f"the row is compressed as {method[:40]!r}, which cannot be decompressed within a limit")
    with caught() as failure:  # each library has exceptions of its own
        data = _METHODS.get(known, _by_kombu(known))(body, limit)
    if isinstance(failure.error, PayloadTooLarge):
        raise failure.error
    if failure.error:
        told = f"the row is compressed as {method[:40]!r}, but cannot be decompressed: {bounded_repr(failure.error)}"
        raise DecodeError(told) from failure.error
    if len(data) > limit:
        raise PayloadTooLarge(limit)
    return data


def _content_type(method: str) -> str:
    """The content type of a method; kombu has other names for most."""
    try:
        return get_encoder(method)[1]  # type: ignore[no-any-return]
    except KeyError:
        return method


def _by_kombu(method: str) -> Decompress:
    return lambda body, limit: get_decoder(method)(body)


def _whole(decompressor: Any, body: bytes, limit: int) -> bytes:
    """All that a decompressor gives, or one byte more than ``limit``."""
    data: bytes = decompressor.decompress(body, limit + 1)
    if len(data) <= limit and not decompressor.eof:
        raise EOFError("it is truncated")
    return data


def _first_of(name: str, other: str) -> Any:
    """The first of two modules that is installed, as kombu chooses."""
    try:
        return import_module(name)
    except ImportError:
        return import_module(other)


def _zstd(body: bytes, limit: int) -> bytes:
    try:
        decompressor = _first_of("compression.zstd", "backports.zstd").ZstdDecompressor()
    except ImportError:
        return _zstandard(body, limit)
    return _whole(decompressor, body, limit)


def _zstandard(body: bytes, limit: int) -> bytes:
    """With the package of kombu before 5.6, which takes memory for as much as the payload says that it holds."""
    zstandard = import_module("zstandard")
    if zstandard.frame_content_size(body) > limit:
        raise PayloadTooLarge(limit)
    data: bytes = zstandard.ZstdDecompressor().decompress(body, limit)
    return data


def _brotli(body: bytes, limit: int) -> bytes:
    decompressor = _first_of("brotli", "brotlicffi").Decompressor()
    try:
        data: bytes = decompressor.process(body, output_buffer_limit=limit + 1)
    except TypeError:
        data = _bite_by_bite(decompressor, body, limit)
    if len(data) <= limit and not decompressor.is_finished():
        raise EOFError("it is truncated")
    return data


def _bite_by_bite(decompressor: Any, body: bytes, limit: int) -> bytes:
    """For brotli before 1.2, which cannot be told when to stop."""
    data = bytearray()
    for start in range(0, len(body), BITE):
        data += decompressor.process(body[start : start + BITE])
        if len(data) > limit:
            break
    return bytes(data)


_METHODS: dict[str, Decompress] = {
    "application/x-gzip": lambda body, limit: _whole(zlib.decompressobj(), body, limit),
    "application/x-bz2": lambda body, limit: _whole(bz2.BZ2Decompressor(), body, limit),
    "application/x-lzma": lambda body, limit: _whole(lzma.LZMADecompressor(memlimit=limit + OWN_MEMORY), body, limit),
    "application/x-brotli": _brotli,
    "application/zstd": _zstd,
}
