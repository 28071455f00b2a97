"""Pickles: plain data from anybody, objects only where pickle is accepted."""

from __future__ import annotations

import io
import pickle
from typing import Any

from kombu.exceptions import ContentDisallowed, DecodeError

from celery_sql_results._compat import private
from celery_sql_results.boundaries import caught

__all__ = ["PICKLE", "is_pickle", "unpickle"]

PICKLE = "application/x-python-serialize"
#: A pickle begins with this byte and its protocol. Of the other serializers, msgpack alone begins with it, for ``{}``.
MARK = b"\x80"
PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")

#: In Python: eight bytes can make the one in C take 32 GB for its memo.
_InPython: Any = private("pickle:_Unpickler") or pickle.Unpickler


class _PlainUnpickler(_InPython):  # type: ignore[misc]
    """Reads numbers, strings and collections, and refuses whatever names a class or a function."""

    def find_class(self, module: str, name: str) -> Any:
        raise ContentDisallowed(
            f"the row is a pickle that names {module}.{name}: to read it, add 'pickle' to result_accept_content, "
            "if everybody who can write to the database may run code here"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise ContentDisallowed("the row is a pickle that refers to objects outside of it")


class _Unpickler(pickle.Unpickler):
    """Reads whatever is named, but for the backend that Celery pickles with each result: it would connect elsewhere."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("celery.backends.base", "unpickle_backend"):
            return _the_apps_own
        return super().find_class(module, name)


def _the_apps_own(cls: object, args: object, kwargs: object) -> None:
    """A result without a backend takes the one of its app."""


def is_pickle(data: bytes) -> bool:
    """Whether a payload begins like a pickle."""
    return data[:1] == MARK and data[1:2] in PROTOCOLS


def unpickle(data: bytes, trusted: bool) -> Any:
    """Read a pickle; only a ``trusted`` one may name classes and functions.

    Raises:
        kombu.exceptions.ContentDisallowed: it is not trusted, and holds more than plain data.
        kombu.exceptions.DecodeError: it is broken.
    """
    unpickler = _Unpickler if trusted else _PlainUnpickler
    with caught() as failure:  # broken pickles raise almost anything
        return unpickler(io.BytesIO(data)).load()
    if isinstance(failure.error, ContentDisallowed):
        raise failure.error
    raise DecodeError(f"the row begins like a pickle, but cannot be read as one: {failure.error}") from failure.error
