"""Exceptions, as they are stored and restored."""

from __future__ import annotations

import asyncio
import json
import sys
from types import ModuleType
from typing import Any

import pytest
from celery.exceptions import SecurityError, WorkerShutdown
from celery.utils.serialization import UnpickleableExceptionWrapper
from hypothesis import given
from hypothesis import strategies as st
from kombu.exceptions import DecodeError

from celery_sql_results.payload import restored, storable

WRAPPER = {"exc_type": "UnpickleableExceptionWrapper", "exc_module": "celery.utils.serialization"}


def stored(name: str, *arguments: object, module: str | None = "builtins") -> dict[str, Any]:
    """What Celery makes of an exception."""
    return {"exc_type": name, "exc_message": list(arguments), "exc_module": module}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (stored("ValueError", "no"), ValueError("no")),
        (stored("CancelledError", module="asyncio.exceptions"), asyncio.CancelledError()),
        (stored("BaseException", 1), BaseException(1)),
        (BaseException(2), BaseException(2)),
        (stored("KeyError", "a", "b"), KeyError("a", "b")),
        ({"exc_type": "ValueError", "exc_message": "no", "exc_module": "builtins"}, ValueError("no")),
        (stored("UnicodeDecodeError", "few"), Exception("<class 'UnicodeDecodeError'>(['few'])")),
    ],
)
def test_its_own_class(value: object, expected: BaseException) -> None:
    """Or the words for it, if its class takes other arguments."""
    found = restored(value)

    assert (type(found), str(found)) == (type(expected), str(expected))


class Leaving(SystemExit, ValueError):
    """Ends the process, and is an ordinary exception as well."""


@pytest.mark.parametrize(
    "value",
    [
        *(stored(name, 3) for name in ("SystemExit", "KeyboardInterrupt", "GeneratorExit")),
        *(SystemExit(3), KeyboardInterrupt(3), GeneratorExit(3), WorkerShutdown(3), Leaving(3)),
        stored("WorkerShutdown", 3, module="celery.exceptions"),
        stored("GreenletExit", 3, module="greenlet"),
    ],
    ids=repr,
)
def test_what_would_end_whoever_asks(value: object) -> None:
    """A class of its name stands for it, and for all below it."""
    found = restored(value)
    name = value["exc_type"] if isinstance(value, dict) else type(value).__name__
    ends = isinstance(found, (SystemExit, KeyboardInterrupt, GeneratorExit))

    assert (type(found).__name__, str(found), isinstance(found, Exception), ends) == (name, "3", True, False)


def test_greenlets_are_not_imported_and_yet_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of their class."""
    greenlet = ModuleType("greenlet")
    greenlet.GreenletExit = type("GreenletExit", (BaseException,), {"__module__": "greenlet"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "greenlet", greenlet)

    assert isinstance(restored(stored("GreenletExit", module="greenlet")), Exception)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["quota", 7], ("quota", 7)),
        ("('quota', <lock>)", ("('quota', <lock>)",)),
        ([], ()),
    ],
)
def test_one_that_could_not_be_pickled(arguments: object, expected: tuple[object, ...]) -> None:
    """Celery's wrapper with the text of the original; arguments that were stored as one text are one."""
    found: Any = restored({**WRAPPER, "exc_message": ["shop", "Api", arguments, "Api('quota')"]})

    assert type(found) is UnpickleableExceptionWrapper
    assert (str(found), found.exc_cls_name, found.exc_args) == ("Api('quota')", "Api", expected)


@pytest.mark.parametrize("message", [["shop"], ["shop", "Api", 7, None], ["shop", "Api", None], 7, [[], {}, {}, []]])
def test_a_wrapper_of_something_else(message: object) -> None:
    """It still has a text, and is an exception."""
    found = restored({**WRAPPER, "exc_message": message})

    assert isinstance(found, Exception)
    assert isinstance(str(found), str)


def test_arguments_that_cannot_be_written_are_shown_each_by_itself() -> None:
    """Not the tuple of them as one text."""
    wrapped = UnpickleableExceptionWrapper("shop", "Api", ["quota", 7, {"a"}], "Api(…)")
    found: Any = storable(wrapped, json.dumps)

    assert (found.exc_args, str(found)) == (("quota", 7, "{'a'}"), "Api(…)")


def test_others_are_written_as_they_are() -> None:
    """Also a subclass of Celery's wrapper: its constructor may take anything."""
    error = ValueError({1})

    assert storable(error, json.dumps) is error


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["ValueError", "SystemExit", "eval", "a.b", "UnpickleableExceptionWrapper", "Exception", ""])
MODULES = st.sampled_from(["builtins", "os", "celery.utils.serialization", "", None])


@given(
    value=ANYTHING
    | st.fixed_dictionaries(
        {}, optional={"exc_type": NAMES | ANYTHING, "exc_module": MODULES | ANYTHING, "exc_message": ANYTHING}
    )
)
def test_any_value_is_an_exception_or_one_clear_error(value: object) -> None:
    """And the exception can be shown."""
    try:
        found = restored(value)
    except (DecodeError, SecurityError):
        return

    assert found is None or isinstance(str(found), str)
    assert not isinstance(found, (SystemExit, KeyboardInterrupt, GeneratorExit))
