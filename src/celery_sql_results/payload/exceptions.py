"""Exceptions, as they are stored and restored; both happen here alone, and once.

What is stored names a class. It is looked up among what this process has loaded already, without running anything: no
import, no attribute that is computed, and only classes of exceptions are ever called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from celery.exceptions import SecurityError
from celery.utils.serialization import (
    UnpickleableExceptionWrapper,
    create_exception_cls,
    get_pickled_exception,
)
from kombu.exceptions import DecodeError
from kombu.utils.encoding import safe_repr

from celery_sql_results.boundaries import caught
from celery_sql_results.errors import Told
from celery_sql_results.foreign import shown
from celery_sql_results.models import NAME_LENGTH

from .text import bounded_repr, clipped, text

__all__ = ["restored", "stand_in", "storable"]

#: Where Celery puts the classes that it makes for those that are not loaded here.
ELSEWHERE = "celery.exceptions"
#: How deep classes stand in one another at most.
NESTED = 20
#: What would end the process, the generator or the greenlet of whoever asks for a result. Greenlets need not be here.
ENDINGS = ("builtins.SystemExit", "builtins.KeyboardInterrupt", "builtins.GeneratorExit", "greenlet.GreenletExit")


def storable(error: BaseException, encode: Callable[[Any], object]) -> BaseException:
    """``error``, ready for Celery to write its arguments with ``encode``.

    Celery's worker wraps an exception that cannot be pickled, and keeps its arguments as one argument. If one of them
    cannot be written, that would be a text of them all; so here each of them is written, or shown, by itself.
    """
    if type(error) is not UnpickleableExceptionWrapper:
        return error
    shown = [_written(argument, encode) for argument in error.exc_args or ()]
    return UnpickleableExceptionWrapper(error.exc_module, error.exc_cls_name, shown, error.text)


def _written(argument: object, encode: Callable[[Any], object]) -> object:
    with caught():  # a serializer may raise anything over a foreign value
        encode(argument)
        return argument
    return safe_repr(argument)


def stand_in(error: BaseException) -> Exception:
    """An exception to store in place of one that cannot be written at all: not even its arguments can be shown."""
    cls = type(error)
    return Exception(f"{cls.__module__}.{cls.__qualname__}, whose arguments cannot be stored")


def restored(stored: Any) -> BaseException | None:
    """The exception that was stored, or ``None`` if none was; of a new class of that name if its own is not loaded.

    One that could not be pickled comes back as Celery has it: from a pickle as a new class of its name, otherwise as
    the ``UnpickleableExceptionWrapper`` that was stored. So this is for what was just read, and for nothing else.

    Raises:
        kombu.exceptions.DecodeError: it is no exception at all.
        celery.exceptions.SecurityError: it names something that is no class of exceptions.
    """
    if not stored:
        return None
    if isinstance(stored, BaseException):  # from a pickle, which was accepted
        return _harmless(get_pickled_exception(stored))
    try:
        data = dict(stored)
        name, module = data["exc_type"], data.get("exc_module")
    except (KeyError, TypeError, ValueError):
        raise DecodeError("the row tells of a failure, but holds no exception") from None
    if not isinstance(name, str) or not isinstance(module, (str, type(None))):
        raise DecodeError("the row tells of a failure, but does not name its exception")
    return _made(_class(module, name), data.get("exc_message", ""))


def _class(module: str | None, name: str) -> Any:
    """A class of exceptions that harm nobody, by its module and its qualified name."""
    found: Any = sys.modules.get(module or "")
    for part in name.split(".", NESTED):
        try:
            found = vars(found)[part]
        except (KeyError, TypeError):
            return _stranger(name)
    if not isinstance(found, type) or not issubclass(found, BaseException):
        named = shown(f"{module}.{name}")
        raise SecurityError(f"the row tells of a failure, but {named} is no exception: it was not called")
    return _stranger(found.__name__) if _ends_whoever_asks(found) else found


def _made(cls: Any, message: Any) -> BaseException:
    """An exception with its arguments, or with the words for it if its class takes others."""
    arguments = message if isinstance(message, (tuple, list)) else (message,)
    make = cls.again if issubclass(cls, Told) else _wrapper if cls is UnpickleableExceptionWrapper else cls
    made: Any = None
    with caught():  # a constructor of somebody else
        made = make(*arguments)
    return made if isinstance(made, BaseException) else Exception(f"{cls}({_words(message)})")


def _words(message: Any) -> str:
    return message if isinstance(message, str) else bounded_repr(message)


def _wrapper(module: Any, name: Any, arguments: Any, text: Any = None) -> BaseException:
    """Celery's wrapper: of arguments that were written as one text, it would take each letter for one."""
    each = arguments if isinstance(arguments, (tuple, list)) else [arguments]
    return UnpickleableExceptionWrapper(module, name, each, str(text))


def _harmless(error: BaseException) -> BaseException:
    """An exception that does not end whoever asks for it: of a new class of its name, if its own would."""
    return _stranger(type(error).__name__)(*error.args) if _ends_whoever_asks(type(error)) else error


def _ends_whoever_asks(cls: type[BaseException]) -> bool:
    return any(f"{each.__module__}.{each.__qualname__}" in ENDINGS for each in cls.__mro__)


def _stranger(name: str) -> type[Exception]:
    """A class for one that is not to be had, by its name."""
    printable = clipped(text(name) or "", NAME_LENGTH)
    return create_exception_cls(printable, ELSEWHERE)  # type: ignore[no-any-return]
