"""A process in which one contender does what it is told, so that no contender meets what another left behind."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

from billiard.context import ForkProcess
from typing_extensions import Self

from benchmarks import contenders
from benchmarks.contenders import Contender, Entry

P = ParamSpec("P")
T = TypeVar("T")


class Failed(Exception):
    """The contender raised an error, or its process died; the message says which."""


class Player:
    """A process that plays one entry; a context manager.

    It is a new interpreter, not a fork. With `forked` the work is done by a child that it forks as a prefork worker
    does. `patience` is how many seconds any one thing may take.
    """

    def __init__(self, entry: Entry, patience: float, *, forked: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._patience = patience
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, entry, forked))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        try:
            self.end()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def do(self, function: Callable[Concatenate[Contender, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function there, with the contender first, and return what it returns.

        Raises:
            TimeoutError: it took longer than `patience`.
            Failed: it raised.
        """
        self.begin(function, *args, **kwargs)
        result: T = self.end()
        return result

    def begin(self, function: Callable[Concatenate[Contender, P], T], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a function there; `end` returns what it returns."""
        try:
            self._connection.send((function, args, kwargs))
        except BrokenPipeError:
            raise self._death() from None

    def end(self) -> Any:
        """Return what the function returned that was begun."""
        if not self._connection.poll(self._patience):
            raise TimeoutError(f"no answer within {self._patience:g} s")
        try:
            value, error = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None
        if error:
            raise Failed(error)
        return value

    def _death(self) -> Failed:
        self._process.join(self._patience)
        return Failed(f"its process ended by itself or was killed by somebody else: exit code {self._process.exitcode}")

    def kill(self) -> None:
        """End the process and all its children."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):  # it has not come to be the leader of a group, or all have ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._connection.close()


def end_with_parent() -> None:
    """See to it that this process does not outlive its parent, whatever it is doing then (Linux; elsewhere it may)."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def _serve(connection: Connection, entry: Entry, forked: bool) -> None:
    end_with_parent()
    os.setsid()
    try:
        contender = contenders.make(entry)
        if forked:
            contender.open()
    except Exception as error:  # noqa: BLE001 - the parent shows it, whatever it is
        connection.send((None, _describe(error)))
    else:
        _obey_in_child(connection, contender) if forked else _obey(connection, contender)


def _obey_in_child(connection: Connection, contender: Contender) -> None:
    child = ForkProcess(target=_obey, args=(connection, contender))
    child.start()
    connection.close()
    child.join()
    sys.exit(child.exitcode)


def _obey(connection: Connection, contender: Contender) -> None:
    end_with_parent()
    connection.send((None, None))
    with suppress(EOFError):  # the parent is gone
        while True:
            function, args, kwargs = connection.recv()
            connection.send(_answer(function, contender, *args, **kwargs))


def _answer(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, str | None]:
    try:
        return function(*args, **kwargs), None
    except Exception as error:  # noqa: BLE001 - the parent shows it, whatever it is
        return None, _describe(error)


def _describe(error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first_line}"
