"""A Celery worker as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from demo import screen
from servers.process import Home

#: Seconds that a worker may take to start.
PATIENCE = 30.0
#: Seconds between two looks at a worker that is starting.
TICK = 0.05
#: Lines of its log that are shown when something went wrong.
TAIL = 15

COMMAND = [
    *(sys.executable, "-m", "celery", "--app", "demo.tasks", "worker", "--concurrency", "2"),
    *("--hostname", "w1@demo", "--loglevel", "info"),
    *("--without-gossip", "--without-mingle"),  # there are no other workers to talk to
]


class Problem(Exception):
    """What went wrong, in a sentence for whoever runs the demo."""


@contextmanager
def worker(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready for tasks, and gone after the block.

    Raises:
        Problem: it did not start.
    """
    process = home.spawn(COMMAND, log(home))
    try:
        with screen.step("start a worker") as step:
            _await_ready(process, log(home))
            step.outcome = "celery --app demo.tasks worker --concurrency 2"
        yield process
    finally:
        kill(process)


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while " ready." not in log.read_text():
        if process.poll() is not None:
            raise Problem(f"The worker ended with status {process.returncode} while it was starting.")
        if time.monotonic() > deadline:
            raise Problem(f"The worker did not start within {PATIENCE:.0f} s.")
        time.sleep(TICK)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a worker and its children at once: a polite end takes Celery five seconds, and what is stored is stored."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def log(home: Home) -> Path:
    """The file that the worker logs to."""
    return home.folder / "worker.log"


def last_words(home: Home) -> str:
    """The end of the worker's log; nothing if it never ran."""
    with suppress(FileNotFoundError):
        return "\n".join(log(home).read_text().splitlines()[-TAIL:])
    return ""
