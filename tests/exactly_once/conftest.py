"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from exactly_once.stage import Stage
from servers import Database
from support import app_on

#: Makes stages with some settings.
Stages = Callable[..., Stage]


@pytest.fixture
def stages(database: Database) -> Iterator[Stages]:
    """Makes stages on the database of the test; `url` is how their backends reach it, if in another way."""
    with ExitStack() as made:

        def make(**settings: Any) -> Stage:
            stage = Stage(app_on(settings.pop("url", database.url), **settings), database)
            made.callback(stage.close)
            return stage

        yield make


@pytest.fixture
def stage(stages: Stages) -> Stage:
    """One with the defaults."""
    return stages()
