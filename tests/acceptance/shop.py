"""The app of these tests: its tasks, and what it is configured with."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery, Task, chain, chord
from celery.result import allow_join_result

import acceptance.broker  # noqa: F401  makes the broker known
from acceptance.nasty import misbehave

#: The variable that brings a worker its configuration, as JSON.
VARIABLE = "SHOP_SETTINGS"


def add(x: int, y: int) -> int:
    """Succeed."""
    return x + y


def total(numbers: list[int]) -> int:
    """Succeed, at the end of a chord."""
    return sum(numbers)


def fail(reason: str) -> None:
    """Fail."""
    raise ValueError(reason)


def retry(self: Task, times: int) -> int:
    """Ask for some retries, then succeed."""
    if self.request.retries < times:
        raise self.retry(countdown=0, max_retries=times, exc=KeyError("not yet"))
    return self.request.retries


def nap(seconds: float) -> None:
    """Run until somebody ends it."""
    time.sleep(seconds)


def follow(self: Task, task_id: str) -> int:
    """Wait for another task inside of this one, and return one more."""
    value: int = self.app.AsyncResult(task_id).get(timeout=60, disable_sync_subtasks=False)
    return value + 1


def ask(self: Task, x: int, y: int) -> int:
    """Have another task do it, and wait for that inside of this one, as Celery has to be allowed."""
    with allow_join_result():
        answer: int = self.app.tasks["add"].delay(x, y).get(timeout=60)
    return answer


def spawn(self: Task, number: int) -> list[str]:
    """Send some tasks, and name them: they become children of this one."""
    return [self.app.tasks["add"].delay(n, 1).id for n in range(number)]


def swap(self: Task, x: int, y: int) -> Any:
    """Let another task take the place of this one."""
    raise self.replace(self.app.tasks["add"].s(x, y))


def swap_for_two(self: Task, x: int, y: int) -> Any:
    """Let two tasks take the place of this one, one after the other."""
    add = self.app.tasks["add"]
    raise self.replace(chain(add.s(x, y), add.s(1)))


def swap_for_many(self: Task, x: int, y: int) -> Any:
    """Let a chord take the place of this one."""
    add = self.app.tasks["add"]
    raise self.replace(chord([add.s(x, y), add.s(1, 1)], self.app.tasks["total"].s()))


def forward(self: Task) -> str:
    """Send another task with the headers that this one came with."""
    result: Any = self.app.tasks["add"].apply_async((1, 1), headers=self.request.headers)
    return str(result.id)


def die() -> None:
    """End the process in which this runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def make_app(settings: Mapping[str, Any]) -> Celery:
    """An app with all tasks, as it is in a worker and in whoever calls."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(settings)
    for task in (add, total, fail, nap, misbehave, die):
        app.task(name=task.__name__)(task)
    for task in (retry, spawn, follow, ask, swap, swap_for_two, swap_for_many, forward):
        app.task(name=task.__name__, bind=True)(task)
    return app


if VARIABLE in os.environ:
    app = make_app(json.loads(os.environ[VARIABLE]))
