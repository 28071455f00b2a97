"""An exception is restored once, and is the same by every way to ask for it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import celery.result
import pytest
from celery import states
from celery.utils.serialization import get_pickleable_exception

from celery_sql_results import DatabaseBackend
from support import Backends

Unsendable = threading.Lock  # can be neither pickled nor written as JSON


class Api(Exception):
    """Of a client library: keeps its connection among its arguments."""

    def __init__(self, message: str, connection: object) -> None:
        super().__init__(message, connection)


class Pair(Exception):
    """Takes two arguments and passes on one."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a = a


class Keyword(Exception):
    """Needs a keyword, and its argument is an object."""

    def __init__(self, page: object, *, code: int) -> None:
        super().__init__(page)


def ways(backend: DatabaseBackend) -> list[Any]:
    """The exception of the task `t`, by every way to ask for it."""
    ours, celerys = backend.app.AsyncResult("t"), celery.result.AsyncResult("t", app=backend.app)
    raised = []
    for result in (backend.app.AsyncResult("t"), celery.result.AsyncResult("t", app=backend.app)):
        with pytest.raises(BaseException) as told:  # noqa: PT011 - which one is the question
            result.get(timeout=5)
        raised.append(told.value)
    return [
        *raised,
        *(ours.result, celerys.result, celerys.result, backend.get_result("t"), backend.wait_for("t")["result"]),
        next(meta["result"] for _, meta in backend.get_many(["t"])),
        *backend.app.GroupResult("g", [ours]).get(timeout=5, propagate=False),
        backend.exception_to_python(backend.get_result("t")),
    ]


@pytest.mark.parametrize(
    ("error", "name", "text", "arguments"),
    [
        (Api("quota", "a"), "Api", "('quota', 'a')", ("quota", "a")),
        (Api("quota", {"a"}), "Api", "('quota', \"{'a'}\")", ("quota", "{'a'}")),
        (Pair(1, 2), "UnpickleableExceptionWrapper", "Pair('1 and 2')", ("1 and 2",)),
        (Keyword({1}, code=7), "UnpickleableExceptionWrapper", "Keyword({1})", ("{1}",)),
        (Keyword(7, code=7), "UnpickleableExceptionWrapper", "Keyword(7)", (7,)),
    ],
    ids=["two arguments", "a set", "one for two", "an object", "a keyword"],
)
def test_as_a_worker_stores_it(
    backend: DatabaseBackend, error: Exception, name: str, text: str, arguments: tuple[object, ...]
) -> None:
    """Its own class; of one that cannot be pickled Celery's wrapper, whose text is that of the original."""
    backend.mark_as_failure("t", get_pickleable_exception(error))
    found = ways(backend)

    assert {(type(each).__name__, str(each)) for each in found} == {(name, text)}
    assert {getattr(each, "exc_args", each.args) for each in found} == {arguments}


def test_one_that_cannot_be_pickled_or_written(backend: DatabaseBackend) -> None:
    """Each argument by itself, and not the letters of their text."""
    backend.mark_as_failure("t", get_pickleable_exception(Api("quota", Unsendable())))
    found = ways(backend)

    assert {each.exc_args[0] for each in found} == {"quota"}
    assert {len(each.exc_args) for each in found} == {2}
    assert {str(each)[:20] for each in found} == {"Api('quota', <unlock"}


def test_one_of_a_release_that_wrote_the_arguments_as_one_text(backend: DatabaseBackend) -> None:
    """Rows of Celery's own backend, and of ours before."""
    stored = {
        "exc_type": "UnpickleableExceptionWrapper",
        "exc_module": "celery.utils.serialization",
        "exc_message": ["shop", "Api", "('quota', <lock>)", "Api('quota', <lock>)"],
    }
    backend.store_result("t", stored, states.FAILURE)

    assert {(str(each), each.exc_args) for each in ways(backend)} == {("Api('quota', <lock>)", ("('quota', <lock>)",))}


def test_pickled(backends: Backends) -> None:
    """Of a class with the name of its own, as Celery has it."""
    backend = backends(result_serializer="pickle", accept_content=["pickle"])
    backend.mark_as_failure("t", get_pickleable_exception(Keyword(7, code=7)))

    assert {(type(each).__name__, each.args) for each in ways(backend)} == {("Keyword", (7,))}


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_cancelled_error_is_caught_as_one(backends: Backends, serializer: str) -> None:
    """It is no `Exception`, and yet ends nobody."""
    backend = backends(result_serializer=serializer, accept_content=[serializer])
    backend.mark_as_failure("t", asyncio.CancelledError("stop"))

    assert {(type(each), each.args) for each in ways(backend)} == {(asyncio.CancelledError, ("stop",))}


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(3), GeneratorExit(3)], ids=repr)
def test_what_would_end_the_process(backends: Backends, serializer: str, error: BaseException) -> None:
    """Comes back as an ordinary exception of that name."""
    backend = backends(result_serializer=serializer, accept_content=[serializer])
    backend.mark_as_failure("t", error)
    found = ways(backend)

    assert {(type(each).__name__, str(each)) for each in found} == {(type(error).__name__, "3")}
    assert {isinstance(each, Exception) for each in found} == {True}
