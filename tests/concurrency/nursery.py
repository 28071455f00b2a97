"""Real processes that start at the same instant.

    with Nursery() as nursery:
        outcomes = nursery.at_once([(store, (url, n)) for n in range(50)])

All are forked from one light process, which has imported the package and connected to nothing. So they start within
milliseconds, and inherit neither threads nor sockets from the process that runs the tests.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from typing_extensions import Self

#: Seconds in which all processes of one call must have ended; generous, since a loaded machine is slow.
PATIENCE = 120.0
#: Whose log records are of interest.
OURS = "celery_sql_results"

#: A function of `concurrency.actors` and its arguments.
Call = tuple[Callable[..., Any], Sequence[Any]]

context = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Outcome:
    """What became of one process."""

    value: Any = None
    error: str = ""
    logged: list[tuple[int, str]] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        """What the package logged as a warning or worse: each retry, for one."""
        return [message for level, message in self.logged if level >= logging.WARNING]


class Recorder(logging.Handler):
    """Keeps the package's log records of one process."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note one record."""
        if record.name.startswith(OURS):
            self.logged.append((record.levelno, record.getMessage()))


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Record what the package logs in the block."""
    root, recorder = logging.getLogger(), Recorder()
    root.addHandler(recorder)
    root.setLevel(logging.INFO)
    try:
        yield recorder
    finally:
        root.removeHandler(recorder)


def perform(call: Call, start: Any, report: Connection) -> None:
    """Be one of the processes: wait for the others, make the call, report."""
    warnings.simplefilter("error")
    (function, arguments), value, error = call, None, ""
    with recorded() as recorder:
        try:
            start.wait(PATIENCE)
            value = function(*arguments)
        except Exception:  # noqa: BLE001  the test reports it, whatever it is
            error = traceback.format_exc()
    report.send(Outcome(value, error, recorder.logged))
    report.close()


def launch(call: Call, start: Any) -> tuple[BaseProcess, Connection]:
    """Fork one process and return it with the pipe that it reports to."""
    report, theirs = context.Pipe(duplex=False)
    process = context.Process(target=perform, args=(call, start, theirs))
    process.start()
    theirs.close()
    return process, report


def outcome_of(process: BaseProcess, report: Connection, deadline: float) -> Outcome:
    """What a process reports, or that it died or took too long."""
    if not report.poll(max(0.0, deadline - time.monotonic())):
        return Outcome(error=f"{process.name} took longer than {PATIENCE:.0f} s")
    try:
        outcome: Outcome = report.recv()
    except EOFError:
        process.join(PATIENCE)
        return Outcome(error=f"{process.name} ended without a report, with exit code {process.exitcode}")
    return outcome


def end(process: BaseProcess) -> None:
    """Let a process end by itself, or by force if it does not."""
    process.join(10)
    if process.is_alive():
        process.kill()
    process.join()
    process.close()


def at_once(calls: Sequence[Call]) -> list[Outcome]:
    """Fork this process once for each call, start all at the same instant, and return what became of each, in order."""
    start = context.Barrier(len(calls))
    started = [launch(call, start) for call in calls]
    deadline = time.monotonic() + PATIENCE
    try:
        return [outcome_of(process, report, deadline) for process, report in started]
    finally:
        for process, report in started:
            end(process)
            report.close()


class Nursery:
    """The light process, from which others are forked; a context manager."""

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _start(self) -> None:
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
        command = [sys.executable, "-c", "from concurrency import nursery; nursery.serve()"]
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": path}
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True)

    def _end(self) -> None:
        with suppress(ProcessLookupError):  # all is gone
            os.killpg(self._process.pid, signal.SIGKILL)  # also what a process that was ended by force has left behind
        self._process.communicate()

    def at_once(self, calls: Sequence[Call]) -> list[Outcome]:
        """Make each call in a process of its own, all at the same instant; see :func:`at_once`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(list(calls), self._process.stdin)
        self._process.stdin.flush()
        try:
            outcomes: list[Outcome] = pickle.load(self._process.stdout)
        except BaseException:  # out of time: what comes yet is not for the next test
            self._end()
            self._start()
            raise
        return outcomes


def serve() -> None:
    """Be the light process, until standard input ends."""
    import concurrency.actors
    import concurrency.kin  # noqa: F401  loaded once, for all

    gc.freeze()  # what was loaded is shared by all, and not copied because a collector walks over it
    calls, outcomes = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whoever prints does not disturb
    while calls.peek(1):
        pickle.dump(at_once(pickle.load(calls)), outcomes)
        outcomes.flush()


def errors(outcomes: Sequence[Outcome]) -> list[str]:
    """The exceptions of all processes."""
    return [outcome.error for outcome in outcomes if outcome.error]


def complaints(outcomes: Sequence[Outcome]) -> list[str]:
    """The warnings of all processes."""
    return [message for outcome in outcomes for message in outcome.complaints]
