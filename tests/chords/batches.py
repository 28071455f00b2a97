"""Tasks of celery-batches, which get many requests at once and store the result of each by themselves."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery_batches import Batches

from acceptance import shop

SIZE = 2


def equipped(app: Celery) -> Celery:
    """The app with these tasks."""

    def batch(requests: list[Any]) -> None:
        """Store the argument of each, with its request."""
        for request in requests:
            app.backend.mark_as_done(request.id, request.args[0], request=request)

    def bare_batch(requests: list[Any]) -> None:
        """Store them by their ids alone."""
        for request in requests:
            app.backend.mark_as_done(request.id, request.args[0])

    def failing_batch(requests: list[Any]) -> None:
        """Fail for each."""
        for request in requests:
            app.backend.mark_as_failure(request.id, ValueError(request.args[0]))

    for task in (batch, bare_batch, failing_batch):
        app.task(name=task.__name__, base=Batches, flush_every=SIZE, flush_interval=0.2, shared=False)(task)
    return app


if shop.VARIABLE in os.environ:
    equipped(shop.app)
