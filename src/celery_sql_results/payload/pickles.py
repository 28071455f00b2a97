"""Pickles: plain data from anybody, objects only where pickle is accepted."""

from __future__ import annotations

import io
import pickle
from typing import Any

from kombu.exceptions import ContentDisallowed, DecodeError

from celery_sql_results.boundaries import caught

from . import plain
from .budget import Budget
from .text import bounded_repr

__all__ = ["PICKLE", "is_pickle", "unpickle"]

PICKLE = "application/x-python-serialize"
#: A pickle begins with this byte and its protocol. Of the other serializers, msgpack alone begins with it, for ``{}``.
MARK = b"\x80"
PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")


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


def unpickle(data: bytes, trusted: bool, budget: Budget) -> Any:
    """Read a pickle; only a ``trusted`` one may name classes and functions, and take what it likes.

    Raises:
        kombu.exceptions.ContentDisallowed: it is not trusted, and holds more than plain data.
        kombu.exceptions.DecodeError: it is broken, or too large.
    """
    with caught() as failure:  # broken pickles raise almost anything
        return _Unpickler(io.BytesIO(data)).load() if trusted else plain.load(data, budget)
    if isinstance(failure.error, (ContentDisallowed, DecodeError)):
        raise failure.error
    told = f"the row begins like a pickle, but cannot be read as one: {bounded_repr(failure.error)}"
    raise DecodeError(told) from failure.error
