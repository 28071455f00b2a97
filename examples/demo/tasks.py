"""An app and its tasks, as anyone writes them: nothing here knows where results go."""

from __future__ import annotations

from typing import Any

from celery import Celery

app = Celery("demo", config_source="demo.celeryconfig")


@app.task
def add(x: float, y: float) -> float:
    """Succeed."""
    return x + y


@app.task
def divide(x: float, y: float) -> float:
    """Fail where `y` is 0."""
    return x / y


@app.task(bind=True, default_retry_delay=0.1)
def connect(self: Any, failures: int) -> str:
    """Fail and be retried as often as told, then succeed."""
    if self.request.retries < failures:
        raise self.retry(exc=ConnectionError("nobody answers"))
    return "connected"


@app.task
def total(numbers: list[float]) -> float:
    """The body of a chord."""
    return sum(numbers)
