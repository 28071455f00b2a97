"""What is stored, looked at as an operator does: by `celery results …`."""

from __future__ import annotations

import subprocess
import sys

from demo import screen
from demo.worker import Problem

#: The program as it is called, and as it is shown.
PROGRAM, SHOWN = [sys.executable, "-m", "celery"], "celery"
#: How many results are listed.
LIMIT = 6


def look(failed: str) -> None:
    """Show the newest results, what failed, and the result of the task that has `failed`.

    Raises:
        Problem: a command did not end as it should.
    """
    _run(0, "list", "--limit", str(LIMIT))
    _run(0, "failures")
    _run(1, "show", failed[:8])  # its exit code says that the task has failed


def _run(expected: int, *arguments: str) -> None:
    command = ["--app", "demo.tasks", "results", *arguments]
    screen.say(f"\n$ {' '.join([SHOWN, *command])}\n", style="cyan")
    code = subprocess.run([*PROGRAM, *command], check=False).returncode
    if code != expected:
        raise Problem(f"`celery results {arguments[0]}` ended with status {code}, but {expected} was expected.")
