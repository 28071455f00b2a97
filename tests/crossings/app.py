"""The app of these tests, in a worker's process and in the caller's: its tasks, and the settings of a crossing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore

import servers  # noqa: F401  makes the portable dialect known
from acceptance import shop
from crossings.axes import Crossing, Settings, merge, settings_of

#: Of the app in every crossing. Passing errors are given up long before a test is.
COMMON: Settings = {
    "broker_connection_retry_on_startup": True,
    "database_retry_window": 10,
    "database_upkeep_interval": 0.5,
    "imports": ["crossings.app"],
    "result_expires": 3600,
    "worker_hijack_root_logger": False,
    "worker_prefetch_multiplier": 1,
    "worker_redirect_stdouts": False,
}


def number(value: Any, token: object = None) -> Any:
    """Return the argument."""
    return value


def late(value: Any) -> Any:
    """Return the argument after a while."""
    time.sleep(0.3)
    return value


def in_order(values: Iterable[Any]) -> list[Any]:
    """Sort, where the order of the parts is not promised."""
    return sorted(values)


def left_to_others(value: Any) -> None:
    """End without an outcome: somebody else will store it."""
    raise Ignore


def burst(reason: str) -> None:
    """Fail."""
    raise ValueError(reason)


def plus(x: int, y: int) -> int:
    """Succeed."""
    return x + y


def own_state(self: Task) -> str:
    """The state of this task as everybody sees it."""
    return str(self.app.AsyncResult(self.request.id).state)


def beget(self: Task) -> None:
    """Send two tasks: they become children of this one."""
    for value in range(2):
        self.app.tasks["crossings.number"].delay(value)


def equip(app: Celery, crossing: Crossing, of_place: Settings) -> Celery:
    """Give an app the tasks of this module, and the settings of a crossing and of the place where it is tried."""
    found: Settings = {}
    for settings in (COMMON, settings_of(crossing), of_place):
        merge(found, settings)
    app.conf.update(found)
    for task in (number, late, in_order, left_to_others, burst, plus):
        app.task(name=f"crossings.{task.__name__}")(task)
    for task in (own_state, beget):
        app.task(name=f"crossings.{task.__name__}", bind=True)(task)
    return app


if shop.VARIABLE in os.environ:
    told = json.loads(os.environ[shop.VARIABLE])
    equip(shop.app, told["crossing"], told["of_place"])
