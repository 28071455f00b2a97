"""Exceptions, as they are stored and raised again.

What is stored names a class. It is looked up among what this process has loaded already, without running anything: no
import, no attribute that is computed, and only classes of exceptions are ever called.
"""

from __future__ import annotations

import sys
from typing import Any

from celery.exceptions import SecurityError
from celery.utils.serialization import create_exception_cls, get_pickled_exception
from kombu.exceptions import DecodeError

__all__ = ["restored", "stand_in"]

#: Where Celery puts the classes that it makes for those that are not loaded here.
ELSEWHERE = "celery.exceptions"


def stand_in(error: BaseException) -> Exception:
    """An exception to store in place of one that cannot be written at all: not even its arguments can be shown."""
    cls = type(error)
    return Exception(f"{cls.__module__}.{cls.__qualname__}, whose arguments cannot be stored")


def restored(stored: Any) -> BaseException | None:
    """The exception that was stored, or ``None`` if none was; of a new class of that name if its own is not loaded.

    Raises:
        kombu.exceptions.DecodeError: it is no exception at all.
        celery.exceptions.SecurityError: it names something that is no class of exceptions.
    """
    if not stored:
        return None
    if isinstance(stored, BaseException):  # from a pickle, which was accepted
        return _catchable(get_pickled_exception(stored))
    try:
        data = dict(stored)
        name, module = data["exc_type"], data.get("exc_module")
    except (KeyError, TypeError, ValueError):
        raise DecodeError("the row tells of a failure, but holds no exception") from None
    if not isinstance(name, str) or not isinstance(module, (str, type(None))):
        raise DecodeError("the row tells of a failure, but does not name its exception")
    return _catchable(_made(_class(module, name), data.get("exc_message", "")))


def _class(module: str | None, name: str) -> Any:
    """A class of exceptions, by its module and its qualified name."""
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        try:
            found = vars(found)[part]
        except (KeyError, TypeError):
            return _stranger(name)
    if not isinstance(found, type) or not issubclass(found, BaseException):
        raise SecurityError(f"the row tells of a failure, but {module}.{name} is no exception: it was not called")
    return found


def _made(cls: Any, message: Any) -> BaseException:
    """An exception with its arguments, or with the words for it if its class takes others."""
    arguments = message if isinstance(message, (tuple, list)) else (message,)
    try:
        made = cls(*arguments)
    except Exception:  # noqa: BLE001 - a constructor of somebody else
        return Exception(f"{cls}({message})")
    return made if isinstance(made, BaseException) else Exception(f"{cls}({message})")


def _catchable(error: BaseException) -> BaseException:
    """An exception that does not end the process of whoever asks for it, as SystemExit would."""
    if isinstance(error, Exception):
        return error
    return _stranger(type(error).__name__)(*error.args)


def _stranger(name: str) -> type[Exception]:
    """A class for one that is not to be had, by its name."""
    printable = name.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return create_exception_cls(printable, ELSEWHERE)  # type: ignore[no-any-return]
