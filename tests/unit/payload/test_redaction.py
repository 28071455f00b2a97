"""What is stored of arguments that must not all be stored."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import pytest
from celery import Celery, Task
from celery.app.task import Context
from celery.canvas import chunks, xmap, xstarmap
from celery.utils.objects import Bunch
from celery.utils.saferepr import saferepr

from celery_sql_results.payload.redaction import REDACTED, Redact, Redaction, redaction_for


def pay(user: str, password: str, *rest: object, amount: int = 0, **more: object) -> None:
    """A task."""


def login(user: str) -> None:
    """Another."""


TASKS: dict[str, Callable[..., None]] = {"pay": pay, "login": login}
NAMES = frozenset({"password", "token"})


def redaction(rule: frozenset[str] | Redact) -> Redaction:
    """A rule that knows the tasks above."""
    return Redaction(rule, lambda name: inspect.signature(TASKS[name]), (100, 100), 3)


def stored(rule: frozenset[str] | Redact, args: Any, kwargs: Any, task: str = "pay", **more: Any) -> tuple[Any, Any]:
    """What is stored of arguments."""
    return redaction(rule)(Context({"id": "t", "task": task, "args": args, "kwargs": kwargs, **more}))


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ([], {}, ([], {})),
        (["ann", "pass"], {}, (["ann", REDACTED], {})),
        (["ann"], {"password": "pass", "amount": 3}, (["ann"], {"password": REDACTED, "amount": 3})),
        ([{"token": {"deep": "x"}, "name": "n"}, "y"], {}, ([{"token": REDACTED, "name": "n"}, REDACTED], {})),
        ([[[{"token": 7}]], "b"], {}, ([[[{"token": REDACTED}]], REDACTED], {})),
        (["a", "b", "of *rest"], {}, (["a", REDACTED, REDACTED], {})),
        ([], {"more": ({"token": 7}, 8)}, ([], {"more": [{"token": REDACTED}, 8]})),
        (["Password"], {"Token": 7}, (["Password"], {"Token": 7})),
    ],
)
def test_names(args: Any, kwargs: Any, expected: tuple[Any, Any]) -> None:
    """Of keyword arguments, of keys however deep, of parameters."""
    assert stored(NAMES, args, kwargs) == expected


def injected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a function an argument that its caller does not know."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function("session", *args, **kwargs)

    return call


def anonymous(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same by somebody who has never heard of `wraps`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return function("session", *args, **kwargs)

    return call


@pytest.mark.parametrize(
    ("decorated", "options", "expected"),
    [
        (lambda function: function, {}, ["ann", REDACTED]),
        (lambda function: function, {"autoretry_for": (KeyError,)}, ["ann", REDACTED]),
        (injected, {}, [REDACTED, REDACTED]),
        (injected, {"autoretry_for": (KeyError,)}, [REDACTED, REDACTED]),
        (anonymous, {}, [REDACTED, REDACTED]),
    ],
    ids=["plain", "retried", "injected", "injected and retried", "anonymous"],
)
@pytest.mark.parametrize("bind", [True, False])
def test_a_decorated_task(decorated: Any, options: dict[str, Any], expected: list[str], bind: bool) -> None:
    """Names are certain only of what Celery itself calls."""
    app = Celery("tests", set_as_current=False)

    def bound(_self: Any, user: str, password: str) -> None:
        """Never run here."""

    def free(user: str, password: str) -> None:
        """Never run here."""

    app.task(name="shop.pay", shared=False, bind=bind, **options)(decorated(bound if bind else free))
    rule = redaction_for(frozenset({"password"}), app)
    assert rule is not None
    args, _ = rule(Context(id="t", task="shop.pay", args=["ann", "pass"], kwargs={}))

    assert args == expected


@pytest.mark.parametrize(("task", "args"), [("unknown", ["a", "b"]), ("login", ["a"])])
def test_a_task_that_is_not_known(task: str, args: list[str]) -> None:
    """Nobody can tell what its positional arguments are."""
    expected = [REDACTED] * len(args) if task == "unknown" else args

    assert stored(NAMES, args, {"x": 1}, task) == (expected, {"x": 1})


@pytest.mark.parametrize("how", ["map", "starmap", "chunks"])
def test_positional_arguments_of_many_calls(how: str) -> None:
    """Celery packs them into one task of its own, which knows no names for them."""
    app = Celery("tests", set_as_current=False)
    task = app.signature("pay", app=app)
    sent = {"map": xmap, "starmap": xstarmap}.get(how, partial(chunks, n=2))(task, [("ann", "pass")], app=app)
    if how == "chunks":
        (sent,) = sent.group().tasks
    received = json.loads(json.dumps(sent))
    args, kwargs = stored(NAMES, received["args"], received["kwargs"], task=received["task"])

    assert received["task"] in {"celery.map", "celery.starmap"}
    assert (args, kwargs["it"]) == ([], REDACTED)


def test_what_the_task_gets_is_left_as_it_was() -> None:
    """The worker still needs it."""
    args, kwargs = ["ann", "pass", {"token": 1}], {"password": "pass"}
    stored(NAMES, args, kwargs)
    stored(lambda _name, args, kwargs: (args.clear(), kwargs.clear()), args, kwargs)

    assert (args, kwargs) == (["ann", "pass", {"token": 1}], {"password": "pass"})


def test_a_callable() -> None:
    """It gets the name of the task and its arguments."""
    assert stored(lambda name, args, kwargs: ([name, *args], {**kwargs, "b": 2}), (1,), {"a": 1}) == (
        ["pay", 1],
        {"a": 1, "b": 2},
    )


class Tenancy(Task):  # type: ignore[misc]
    """Takes an argument of its own before those of the function."""

    def __call__(self, _tenant: str, *args: Any) -> Any:
        return super().__call__(*args)


def test_a_task_that_is_called_in_its_own_way() -> None:
    """Names would be off by one."""
    app = Celery("tests", set_as_current=False)

    @app.task(name="shop.pay", shared=False, base=Tenancy)
    def pay(password: str, user: str) -> None:
        """Never run here."""

    rule = redaction_for(frozenset({"password"}), app)
    assert rule is not None
    assert rule(Context(id="t", task="shop.pay", args=["acme", "s3cret", "joe"], kwargs={})) == ([REDACTED] * 3, {})


@dataclass
class Credentials:
    """JSON writes it if somebody has told kombu how."""

    password: str


@pytest.mark.parametrize("value", [Credentials("s3cret"), {("password", "s3cret")}, object()])
def test_what_an_object_holds_is_not_looked_into(value: Any) -> None:
    """A serializer may make a mapping of it."""
    expected = ([REDACTED, REDACTED], {"more": [REDACTED]})
    assert stored(NAMES, [value, "pass"], {"more": [value]}) == expected


class Trap:
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise ValueError("a secret")


def raising(*_: Any) -> Any:
    """A rule with a fault."""
    raise KeyError("a secret")


@pytest.mark.parametrize("rule", [raising, lambda *_: None, lambda *_: (1, 2, 3)], ids=["raises", "none", "three"])
def test_a_callable_that_fails(rule: Redact, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of the arguments is stored, and one line of the log says so, without a word of them."""
    with caplog.at_level(logging.ERROR):
        found = stored(rule, ["a secret"], {"b": 2})
    (said,) = [record.getMessage() for record in caplog.records]

    assert found == (REDACTED, REDACTED)
    assert said.startswith("the arguments of task pay[t] are not stored: database_redact raised ")
    assert "secret" not in said


@pytest.mark.parametrize("names", [NAMES, frozenset()], ids=["names", "no names"])
def test_what_a_sender_shows_is_stored_in_place_of_the_values(names: frozenset[str]) -> None:
    """`apply_async(…, argsrepr="…")`."""
    assert stored(names, ["ann"], {"amount": 3}, argsrepr="(<user>, …)", kwargsrepr="{…}") == ("(<user>, …)", "{…}")


@pytest.mark.parametrize("shown", ["('ann', 'pass')", "(ann, <a password>)", "pa…ss", "cGFzcw=="])
def test_what_a_sender_shows_of_something_replaced_is_not(shown: str) -> None:
    """Nobody can tell whether it shows that."""
    assert stored(NAMES, ["ann", "pass"], {"a": 1}, argsrepr=shown, kwargsrepr="{…}") == (["ann", REDACTED], "{…}")


@pytest.mark.parametrize("sent", [(["ann", "pass"]), ("ann", "pass"), ("ann", ("pass",), (1, 2))])
def test_what_celery_shows_is_not(sent: Any) -> None:
    """It is made by each sender that says nothing; tuples have become lists on their way."""
    arrived = [list(value) if isinstance(value, tuple) else value for value in sent]
    args, _ = stored(frozenset(), arrived, {}, argsrepr=saferepr(sent, 100))

    assert args == arrived


@pytest.mark.parametrize(
    "secret",
    ["s3cret", 1234567, b"s3cret", "l" * 500, "quote's", "a 'b' \"c\"\n", "x" * 60 + " " + "y" * 60],
    ids=lambda value: repr(value)[:10],
)
def test_what_is_redacted_is_not_shown_by_the_sender_either(secret: Any) -> None:
    """Celery's own text differs where something changed on its way (here: a set), and holds the values."""
    args, _ = stored(NAMES, [["a", "b"], secret], {}, argsrepr=saferepr(({"a", "b"}, secret), 100))

    assert args == [["a", "b"], REDACTED]


@pytest.mark.parametrize("rule", [NAMES, raising], ids=["names", "callable"])
@pytest.mark.parametrize(
    "request_", [Bunch(name="unknown", chord=None), Context(id="t", errbacks=[])], ids=["bunch", "context"]
)
def test_a_request_without_arguments(rule: frozenset[str] | Redact, request_: Any) -> None:
    """Celery makes it of a message that names an unknown task, and of the body of a chord that failed."""
    assert redaction(rule)(request_) == (None, None)


def test_a_request_without_a_name(caplog: pytest.LogCaptureFixture) -> None:
    """What it has is redacted; a rule that fails is told of all the same."""
    assert redaction(NAMES)(Bunch(args=["a"], kwargs={"token": 1})) == ([REDACTED], {"token": REDACTED})
    assert redaction(raising)(Bunch(args=["a"])) == (REDACTED, REDACTED)
    assert [record.getMessage() for record in caplog.records] == [
        "the arguments of task None[None] are not stored: database_redact raised KeyError"
    ]


def test_values_that_cannot_be_shown() -> None:
    """Nobody shows them."""
    assert stored(frozenset(), [Trap()], {}, argsrepr="x") == ("x", {})
    assert stored(NAMES, ["ann", Trap()], {}, argsrepr="x") == (["ann", REDACTED], {})


def test_too_deep() -> None:
    """Nor can what has no end."""
    endless: list[Any] = []
    endless.append(endless)

    assert stored(NAMES, [endless], {}) == (REDACTED, REDACTED)
