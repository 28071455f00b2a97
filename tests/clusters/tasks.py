"""The tasks of a load on clusters: their value is known from their id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery, Task

from acceptance import shop
from faults.actors import RAN, value_of

#: In the folder of a load: which bodies have run.
BODIES = "bodies-ran.of"


def give(self: Task, folder: str) -> dict[str, str]:
    """Give what belongs to this id."""
    return value_of(self.request.id)


def total(self: Task, values: list[dict[str, str]], folder: str) -> dict[str, str]:
    """Note that this body runs, and give what belongs to its id, if all parts have given what belongs to theirs."""
    with Path(folder, BODIES).open("a") as file:
        file.write(f"{RAN}{self.request.id}\n")
    if wrong := [value for value in values if value != value_of(value["id"])]:
        raise ValueError(wrong)
    return value_of(self.request.id)


def equipped(app: Celery) -> Celery:
    """The app with the tasks of this module."""
    for task in (give, total):
        app.task(name=f"clusters.{task.__name__}", bind=True)(task)
    return app


def signature(app: Celery, task: str, task_id: str, folder: Path) -> Any:
    """One call, with an id that is known before."""
    return app.signature(f"clusters.{task}", (str(folder),), task_id=task_id)


if shop.VARIABLE in os.environ:
    equipped(shop.app)
