"""Fixtures of these tests: apps whose broker needs no server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from celery import Celery

from acceptance.shop import make_app
from acceptance.worker import Settings

#: Makes an app as a caller has it from settings.
MakeApp = Callable[[Settings], Celery]


@pytest.fixture
def make() -> Iterator[MakeApp]:
    """Make apps, and close what they have opened."""
    apps: list[Celery] = []

    def make(settings: Settings) -> Celery:
        apps.append(make_app(settings))
        return apps[-1]

    yield make
    for app in apps:
        app.backend.ResultSession().get_bind().engine.dispose()
        app.close()
