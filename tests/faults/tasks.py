"""Tasks that run until a test lets them go, for the shop's app."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery, Task

from acceptance import shop

#: Seconds after which a task ends that everybody has forgotten.
LIFETIME = 240.0
TICK = 0.01


def hold(self: Task, path: str, value: Any) -> Any:
    """Note who runs this, and return the value when the file is there that says so."""
    with open(path, "a") as file:
        file.write(f"{self.request.hostname} {os.getpid()}\n")
    deadline = time.monotonic() + LIFETIME
    while not released(Path(path)).exists() and time.monotonic() < deadline:
        time.sleep(TICK)
    return value


def released(path: Path) -> Path:
    """The file that lets a task go."""
    return path.with_suffix(".released")


def equipped(app: Celery) -> Celery:
    """The app with the tasks of this module."""
    app.task(name="hold", bind=True)(hold)
    app.task(name="hold_early", bind=True, acks_late=False)(hold)
    return app


def make_app(settings: Mapping[str, Any]) -> Celery:
    """An app with all tasks, as it is in a worker and in whoever calls."""
    return equipped(shop.make_app(settings))


if shop.VARIABLE in os.environ:
    equipped(shop.app)
