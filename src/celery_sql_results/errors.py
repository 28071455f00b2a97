"""The exceptions of this package. Wherever Celery has one, Celery's is raised.

::

    celery.exceptions.ImproperlyConfigured
     ├── SettingError        a setting has a value that cannot work
     ├── DatabaseUnusable    the database that a setting names will not have us, and will not by itself
     └── SchemaError         the tables are not there and may not be created
    ValueError
     └── TaskIdInvalid       no column can hold an id
          └── TaskIdTooLong  it is longer than its column
    celery.exceptions.TimeoutError, TimeoutError
     └── AwaitTimeout        what a coroutine awaited was not ready in time
    Exception
     └── ResultRefused       the database refused a result; it is the error that is stored in its place
    kombu.exceptions.DecodeError
     └── PayloadTooLarge     a row takes more memory to be read than the settings allow

Of :func:`~celery_sql_results.complete`::

    RuntimeError
     └── CannotComplete      this task cannot be completed on this connection
    celery.exceptions.Ignore
     └── AlreadyCompleted    another copy of the task has completed it: this one must leave nothing behind
    kombu.exceptions.EncodeError
     └── NotCommitted        the task has returned, but its transaction was not committed

From Celery and kombu come ``BackendStoreError`` and ``BackendGetMetaError`` (the database could not be reached for as
long as the settings say), ``TimeoutError``, ``EncodeError`` (a result cannot be serialized), and of values that cannot
be trusted ``ContentDisallowed`` (content that ``accept_content`` does not allow), ``DecodeError`` (it cannot be read)
and ``SecurityError`` (the exception that it names is none): ``get`` raises them, and ``result`` holds them.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import Ignore, ImproperlyConfigured
from celery.exceptions import TimeoutError as CeleryTimeoutError
from kombu.exceptions import DecodeError, EncodeError
from typing_extensions import Self

from .foreign import shown

__all__ = [
    "AlreadyCompleted",
    "AwaitTimeout",
    "CannotComplete",
    "DatabaseUnusable",
    "Described",
    "NotCommitted",
    "PayloadTooLarge",
    "ResultRefused",
    "SchemaError",
    "SettingError",
    "TaskIdInvalid",
    "TaskIdTooLong",
    "Told",
    "bare",
]


class AwaitTimeout(CeleryTimeoutError, TimeoutError):
    """What a coroutine awaited was not ready in time: both Celery's ``TimeoutError`` and Python's."""


class Described(str):
    """What stands for a value that is not shown, such as "a URL with two hosts"."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Told(Exception):
    """One whose constructor makes its text of parts. A copy, or what was stored and is read, has the text at once."""

    @classmethod
    def again(cls, *args: Any) -> Self:
        """One with these ``args``, of which its text is one."""
        return cls.__new__(cls, *args)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).again, self.args, self.__dict__


class SettingError(Told, ImproperlyConfigured):
    """A setting has a value that cannot work; the message names the setting, the value and the remedy."""

    def __init__(self, setting: str, found: object, needed: str) -> None:
        text = repr(found)
        if "://" in text:
            text = "what looks like a URL (not shown, it may hold a password)"
        super().__init__(f"{setting} is {shown(text)}, but it must be {needed}")


class DatabaseUnusable(ImproperlyConfigured):
    """The database will not have us as we come, now or later: a wrong password, no such database, no such directory.

    The message names the setting, the database without its password, what the driver said, and what is needed. The
    driver's error is the cause.
    """


class SchemaError(ImproperlyConfigured):
    """The tables are not there and this role may not create them; the message holds the SQL to run."""


class TaskIdInvalid(ValueError):
    """No column can hold an id, so its result could neither be stored nor found; the message says what is wrong."""


class TaskIdTooLong(Told, TaskIdInvalid):
    """An id is longer than its column."""

    def __init__(self, kind: str, found: str, longest: int) -> None:
        shown = f"{found[:40]!a}… has {len(found)} characters"
        super().__init__(f"the {kind} id {shown}, but the column holds {longest}: choose a shorter one")


class ResultRefused(Exception):
    """Stands for a result that the database refused; the message says why, and how large it was."""


class PayloadTooLarge(Told, DecodeError):
    """A payload takes more memory than ``database_max_decompressed_bytes`` allows.

    Args:
        limit: bytes that were allowed.
        kind: of what.
    """

    def __init__(self, limit: int, kind: str = "a compressed payload") -> None:
        super().__init__(
            f"the row holds {kind} of more than {limit} bytes, and was not read: if that is its true size, raise "
            "database_max_decompressed_bytes"
        )


class CannotComplete(RuntimeError):
    """A task cannot be completed on what it has handed over, for what the message says; nothing was written."""


class AlreadyCompleted(Ignore):
    """Another copy of the task has completed it. Let it pass: it rolls this one's transaction back.

    Celery then stores nothing and acknowledges the copy, which is no failure.
    """


class NotCommitted(EncodeError):
    """A task has returned after ``complete``, but its transaction was rolled back or left open: the task has failed.

    It is an ``EncodeError`` because that is how Celery learns from a backend that a task which has returned has failed.
    """


def bare(error: BaseException) -> BaseException:
    """The driver's own error, without the wrapper and the way that it took: whoever is told wants its words."""
    orig = getattr(error, "orig", None) or error
    orig.__cause__ = orig.__context__ = None
    return orig.with_traceback(None)
