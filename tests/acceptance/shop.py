"""The app of these tests: its tasks, and what it is configured with."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery, Task
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


def make_app(settings: Mapping[str, Any]) -> Celery:
    """An app with all tasks, as it is in a worker and in whoever calls."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(settings)
    for task in (add, total, fail, nap, misbehave):
        app.task(name=task.__name__)(task)
    for task in (retry, spawn, follow, ask):
        app.task(name=task.__name__, bind=True)(task)
    return app


if VARIABLE in os.environ:
    app = make_app(json.loads(os.environ[VARIABLE]))
