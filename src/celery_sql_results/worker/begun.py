"""When the task of a request began: noted as it begins, so that its hard time limit is known when it has ended."""

from __future__ import annotations

import math
import time
from typing import Any

from celery.signals import task_prerun

__all__ = ["GRACE", "seconds_until_killed"]

#: Seconds before the hard time limit strikes in which an outcome is put on the disk.
GRACE = 3.0

#: The attribute of a request that holds the time, by the monotonic clock.
_BEGUN = "_celery_sql_results_begun"


def _note(task: Any = None, **_: Any) -> None:
    setattr(task.request_stack.top, _BEGUN, time.monotonic())


def seconds_until_killed(app: Any, request: Any) -> float:
    """Seconds until the hard time limit of a task strikes; infinite without one, or outside of a worker."""
    begun = getattr(request, _BEGUN, None)
    if begun is None:
        return math.inf
    task, limits = app.tasks.get(request.task), request.timelimit or (None,)
    limit = limits[0] or getattr(task, "time_limit", None) or app.conf.task_time_limit
    return begun + limit - time.monotonic() if limit else math.inf


task_prerun.connect(_note)
