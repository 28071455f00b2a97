"""What of a task's arguments is stored, where ``database_redact`` says that not all of it may be.

Whatever goes wrong here, less is stored and not more.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from celery.utils.saferepr import saferepr

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping

__all__ = ["REDACTED", "REPR_LEVELS", "Redact", "Redaction", "redaction_for"]

logger = escaping(logging.getLogger(__name__))

#: Takes a task's name and arguments, and returns the arguments that may be stored.
Redact = Callable[[str, Sequence[Any], Mapping[str, Any]], tuple[Any, Any]]

#: How deep Celery before 5.7 shows arguments.
REPR_LEVELS = 3
#: Stands for what is not stored.
REDACTED = "[redacted]"
#: Values in which nothing has a name. What another object is made of, only a serializer may know.
SINGLE = (str, bytes, bytearray, memoryview, int, float, complex, Decimal, UUID, date, time, timedelta, Enum)
#: What may differ between two texts that show the same: tuples arrive as lists.
AS_LISTS = str.maketrans("()", "[]")


@dataclass(frozen=True)
class Redaction:
    """The rule of one backend.

    Args:
        rule: names of arguments, of parameters and of keys whose values are not stored; or a callable.
        signature_of: the signature of a task by its name; raises if there is no such task, or it is not certain.
        repr_sizes: how many characters Celery shows of positional and of keyword arguments.
        repr_levels: how deep it shows them.
    """

    rule: frozenset[str] | Redact
    signature_of: Callable[[str], inspect.Signature]
    repr_sizes: tuple[int, int]
    repr_levels: int

    def __call__(self, request: Any) -> tuple[Any, Any]:
        """What is stored as ``args`` and ``kwargs`` of a task.

        A text of its own that the sender gave (``argsrepr``, ``kwargsrepr``) is stored in place of the values. The
        requests that Celery makes of tasks that were not run may lack anything.
        """
        task, id_, *given = _known(request, "task", "id", "args", "kwargs")
        if given == [None, None]:
            return None, None
        if not getattr(request, "immutable", True):  # what is left of a chain: the result before it would come first
            given[0] = [REDACTED, *(given[0] or ())]
        with caught() as failure:  # a rule may raise anything, and the result must be stored
            kept = self._apply(task, *given)
            shown = _known(request, "argsrepr", "kwargsrepr")
            args, kwargs = map(self._shown, shown, given, kept, self.repr_sizes)
            return args, kwargs
        told = (task, id_, type(failure.error).__name__)
        logger.error("the arguments of task %s[%s] are not stored: database_redact raised %s", *told)
        return REDACTED, REDACTED

    def _apply(self, task: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> tuple[Any, Any]:
        args, kwargs = list(args or ()), dict(kwargs or {})
        if callable(self.rule):
            kept_args, kept_kwargs = self.rule(task, args, kwargs)
            return kept_args, kept_kwargs
        if not self.rule:
            return args, kwargs
        named = zip(self._names(task, len(args)), args, strict=True)
        kept = [REDACTED if name is None or name in self.rule else _without(value, self.rule) for name, value in named]
        return kept, _without(kwargs, self.rule)

    def _names(self, task: str, number: int) -> list[str | None]:
        """The parameters that positional arguments are for; ``None`` for each where that is not certain.

        What is in ``*args`` may be for any parameter of a function that is called with it.
        """
        try:
            parameters = self.signature_of(task).parameters.values()
        except (KeyError, TypeError, ValueError):
            return [None] * number
        names = [each.name for each in parameters if each.kind < inspect.Parameter.VAR_POSITIONAL]
        return [*names, *[None] * number][:number]

    def _shown(self, text: str | None, given: Any, kept: Any, size: int) -> Any:
        """The sender's own text, if it is one, and nothing was replaced: who knows what it shows of that."""
        if not text or len(text) >= size or _replaced(given, kept):
            return kept
        return kept if _as_lists(text) == _as_lists(saferepr(given, size, maxlevels=self.repr_levels)) else text


def redaction_for(rule: frozenset[str] | Redact | None, app: Any) -> Redaction | None:
    """The rule for the tasks of an app, if there is one."""
    if rule is None:
        return None
    sizes = (app.amqp.argsrepr_maxsize, app.amqp.kwargsrepr_maxsize)
    levels = getattr(app.conf, "task_repr_maxlevels", None) or REPR_LEVELS
    return Redaction(rule, lambda task: _signature(app.tasks[task]), sizes, levels)


def _signature(task: Any) -> inspect.Signature:
    """The signature of a task's function, as its caller sees it.

    Raises:
        ValueError: it stands behind a decorator or a ``__call__``, which may pass on other arguments than it gets.
    """
    run = task.run
    if not type(task).__call__.__module__.startswith("celery.app."):  # a worker gives tasks another one of Celery's
        raise ValueError("behind __call__")
    while hasattr(run, "__wrapped__"):
        if run.__globals__["__name__"] != "celery.app.autoretry":  # which passes on what it gets
            raise ValueError("behind a decorator")
        run = run.__wrapped__
    return inspect.signature(run)


def _known(request: Any, *names: str) -> tuple[Any, ...]:
    """Attributes of a request, ``None`` for each that it has not."""
    return tuple(getattr(request, name, None) for name in names)


def _without(value: Any, names: Collection[str]) -> Any:
    """A copy of ``value`` in which the values of all keys in ``names`` are replaced, and arguments without names."""
    if isinstance(value, Mapping):
        hidden = {*names, *_nameless(value)}
        return {key: REDACTED if key in hidden else _without(item, names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without(item, names) for item in value]
    return value if value is None or isinstance(value, SINGLE) else REDACTED


def _nameless(value: Mapping[Any, Any]) -> Collection[str]:
    """Keys of positional arguments of another task: those of a signature, and of map, starmap and chunks."""
    if "subtask_type" in value:
        return ["args"]
    return ["it"] if isinstance(value.get("task"), Mapping) else []


def _replaced(given: Any, kept: Any) -> bool:
    """Whether a rule has changed arguments, which it gets as lists and dicts."""
    return bool(_plain(given) != _plain(kept))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _as_lists(text: str) -> str:
    return text.translate(AS_LISTS).replace(",]", "]")
