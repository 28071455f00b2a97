"""The commands that look, run as people run them: through `celery` and through `celery-sql-results`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import states

from acceptance.shop import VARIABLE
from celery_sql_results import DatabaseBackend
from servers import Database
from support import request

#: Seconds in which a command must have ended; generous, since a loaded machine is slow.
PATIENCE = 90
#: The two programs.
PROGRAMS = ("celery", "celery-sql-results")
#: What a terminal would obey, and no line of ours may hold: an escape sequence, a bell, a carriage return.
HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\nnext"
#: What Celery runs under a database that only processes know which have imported `servers`.
STRANGE = (
    "import runpy, sys, servers; sys.argv[0] = sys.argv.pop(1); runpy.run_module(sys.argv[0], run_name='__main__')"
)


class Finished(NamedTuple):
    """What a command has left."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[Any]:
        """The lines of JSON that it has printed."""
        return [json.loads(line) for line in self.out.splitlines()]


def command(database: Database, arguments: tuple[str, ...], through: str) -> list[str]:
    """The words of a command."""
    python = [sys.executable, "-c", STRANGE] if database.kind == "portable" else [sys.executable, "-m"]
    if through == "celery":
        return [*python, "celery", "--app=acceptance.shop", "results", *arguments]
    return [*python, "celery_sql_results", f"--database-url={database.url}", *arguments]


def environment(database: Database, **settings: Any) -> Mapping[str, str]:
    """What a command finds: the tests' own modules, and the settings of the app."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    known = {"result_backend": f"sql+{database.url}", **settings}
    return {**os.environ, "PYTHONPATH": path, VARIABLE: json.dumps(known), "PYTHONWARNINGS": ""}


def look(database: Database, *arguments: str, through: str = "celery-sql-results", **settings: Any) -> Finished:
    """Run a command in a pipe."""
    words, env = command(database, arguments, through), environment(database, **settings)
    done = subprocess.run(words, capture_output=True, env=env, timeout=PATIENCE, check=False, text=True)
    return Finished(done.returncode, done.stdout, done.stderr)


def is_tame(text: str) -> bool:
    """Whether a terminal obeys nothing of a text but the ends of its lines."""
    return text.replace("\n", "").isprintable()


@pytest.fixture(params=PROGRAMS)
def through(request: pytest.FixtureRequest) -> str:
    """Each program in turn."""
    return str(request.param)


def fail(backend: DatabaseBackend, task_id: str, error: Exception, **known: Any) -> None:
    """Store the failure of a task."""
    told = f"Traceback (most recent call last):\n  …\n{type(error).__name__}: {error}"
    known = {"group": None, "root_id": task_id, "parent_id": None, **known}
    backend.store_result(task_id, error, states.FAILURE, traceback=told, request=request(task_id, **known))


def succeed(backend: DatabaseBackend, task_id: str, value: Any = 1, **known: Any) -> None:
    """Store the success of a task."""
    known = {"group": None, "root_id": task_id, "parent_id": None, **known}
    backend.store_result(task_id, value, states.SUCCESS, request=request(task_id, **known))
