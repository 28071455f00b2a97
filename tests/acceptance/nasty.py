"""What a task can return or raise that is hard to store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any


class BadStr(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class BadArgument:
    """Can be shown as little, and not be pickled."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


class Picky(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Endless(Exception):
    """Is its own argument."""

    def __init__(self, *_: object) -> None:
        super().__init__(self)


def local() -> Exception:
    """Of a class that nobody else can find."""

    class Local(Exception):
        """Only here."""

    return Local("text")


def deep() -> Any:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


def group() -> Exception:
    """Several exceptions at once, where Python has them."""
    try:
        return ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    except NameError:
        return ValueError("several")


#: What is raised.
RAISED: dict[str, Callable[[], BaseException]] = {
    "bad str": lambda: BadStr("x"),
    "bad argument": lambda: ValueError(BadArgument()),
    "lock": lambda: ValueError(threading.Lock()),
    "picky": lambda: Picky(1, 2),
    "endless": Endless,
    "local": local,
    "group": group,
    "deep": lambda: ValueError(deep()),
    "surrogate": lambda: ValueError("\ud83d \x00"),
    "long": lambda: ValueError("x" * 2_000_000),
    "bytes": lambda: ValueError(b"\xff\xfe"),
    "none": Exception,
    "key": lambda: KeyError(("a", 1), {2}),
}
#: What is returned, and no serializer can write.
RETURNED: dict[str, Callable[[], Any]] = {
    "lock": threading.Lock,
    "generator": lambda: (n for n in range(3)),
    "bad argument": BadArgument,
    "local": local,
}


def misbehave(how: str, what: str) -> Any:
    """Raise or return something."""
    if how == "raise":
        raise RAISED[what]()
    return RETURNED[what]()


def everything() -> Iterator[tuple[str, str]]:
    """The arguments of `misbehave`."""
    yield from (("raise", what) for what in RAISED)
    yield from (("return", what) for what in RETURNED)
