"""When the task of a request began: noted as it begins, for its row and so that its hard time limit is known."""

from __future__ import annotations

import math
import time
from datetime import datetime, timezone
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from celery.signals import task_prerun, task_received

from celery_sql_results.ids import as_text
from celery_sql_results.models import utc_now

__all__ = ["GRACE", "began_at", "seconds_until_killed"]

#: Seconds before the hard time limit strikes in which an outcome is put on the disk.
GRACE = 3.0

#: The attribute of a request that holds the time.
_BEGUN = "_celery_sql_results_begun"


class _Begun(NamedTuple):
    """When a task began: by the monotonic clock, and in UTC."""

    monotonic: float
    at: datetime


#: What the main process of a worker knows of the tasks that it was sent: it stores the outcome of one that was killed.
_received: WeakValueDictionary[str, Any] = WeakValueDictionary()


def _note(task: Any = None, **_: Any) -> None:
    setattr(task.request_stack.top, _BEGUN, _Begun(time.monotonic(), utc_now()))


def _receive(request: Any = None, **_: Any) -> None:
    _received[as_text(request.id)] = request


def began_at(request: Any) -> datetime | None:
    """When the task of a request began, in UTC; ``None`` if it did not, or nobody knows."""
    begun = getattr(request, _BEGUN, None)
    if begun is not None:
        return begun.at  # type: ignore[no-any-return]
    id_ = getattr(request, "id", None)
    started = None if id_ is None else getattr(_received.get(as_text(id_)), "time_start", None)
    return started and datetime.fromtimestamp(started, timezone.utc).replace(tzinfo=None)


def seconds_until_killed(app: Any, request: Any) -> float:
    """Seconds until the hard time limit of a task strikes; infinite without one, or outside of a worker."""
    begun = getattr(request, _BEGUN, None)
    if begun is None:
        return math.inf
    task, limits = app.tasks.get(request.task), request.timelimit or (None,)
    limit = limits[0] or getattr(task, "time_limit", None) or app.conf.task_time_limit
    return begun.monotonic + limit - time.monotonic() if limit else math.inf


task_prerun.connect(_note)
task_received.connect(_receive)
