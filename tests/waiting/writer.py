"""The second process, which stores results while the tests wait for them.

It is started once, since Celery takes a second to import, and takes orders as lines of JSON: each names the database
and the settings of the backend, and what to store there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from celery import states
from celery.exceptions import TaskRevokedError
from typing_extensions import Self

import servers  # noqa: F401  makes the portable dialect known
from celery_sql_results import DatabaseBackend
from support import app_on

#: What is stored: task id, value (the message, if it is an error) and state.
Stored = tuple[str, Any, str]


class Scribe:
    """The process; a context manager."""

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
        command = [sys.executable, "-c", "from waiting import writer; writer.serve()"]
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": path}
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it ends with its standard input

    def obey(self, **order: Any) -> None:
        """Return when an order has been carried out.

        Raises:
            RuntimeError: it could not; the message holds the traceback.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        if failure := json.loads(self._process.stdout.readline()):
            raise RuntimeError(failure)


@dataclass(frozen=True)
class Writer:
    """Stores results in one database, in the other process."""

    scribe: Scribe
    url: str
    settings: dict[str, Any] = field(default_factory=dict)

    def having(self, **settings: Any) -> Writer:
        """Another one, whose backend has other settings."""
        return replace(self, settings=settings)

    def store(self, task_id: str, value: Any = None, state: str = states.SUCCESS) -> None:
        """Store one result, and return when it is committed."""
        self.store_all([(task_id, value, state)])

    def store_all(self, tasks: list[Stored]) -> None:
        """Store results one by one, and return when all are committed."""
        self.scribe.obey(url=self.url, settings=self.settings, tasks=tasks)

    def leave(self) -> None:
        """Close all connections to the database."""
        self.scribe.obey(url=self.url, leave=True)


# -- in the other process ------------------------------------------------------------------------------------------

_backends: dict[str, DatabaseBackend] = {}


def serve() -> None:
    """Carry out orders until standard input ends."""
    for line in sys.stdin:
        failure = ""
        try:
            carry_out(**json.loads(line))
        except Exception:  # noqa: BLE001  whoever gave the order is told, whatever it is
            failure = traceback.format_exc()
        print(json.dumps(failure), flush=True)


def carry_out(
    url: str, settings: dict[str, Any] | None = None, tasks: list[Stored] | None = None, leave: bool = False
) -> None:
    """Carry out one order."""
    if leave:
        close(url)
        return
    key = json.dumps([url, settings])
    if key not in _backends:
        _backends[key] = app_on(url, **(settings or {})).backend
    for task_id, value, state in tasks or ():
        _backends[key].store_result(task_id, as_result(value, state), state)


def as_result(value: Any, state: str) -> Any:
    """What a task with that state has as its result."""
    if state not in states.EXCEPTION_STATES:
        return value
    return TaskRevokedError(value) if state == states.REVOKED else ValueError(value)


def close(url: str) -> None:
    """Close all connections to a database."""
    for key in [key for key in _backends if json.loads(key)[0] == url]:
        _backends.pop(key).database.engine.dispose()
