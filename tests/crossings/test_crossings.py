"""One scenario on combinations in which every possible pair of values of two axes meets."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossings.axes import AXES, Crossing
from crossings.covering import covering, missing_in
from crossings.scenario import STEPS
from crossings.stage import Stage, staged
from servers.pool import Pool

# pg8000 leaves the socket of a connection open that was cut, and Python complains of it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

#: So many steps may fail before a scenario is given up.
ENOUGH = 3
USUAL = {axis: next(iter(values)) for axis, values in AXES.items()}


def name(crossing: Crossing) -> str:
    """The database and whatever is unusual."""
    return " ".join(value for axis, value in crossing.items() if axis == "database" or value != USUAL[axis])


CROSSINGS = covering()


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """A worker in this process sets the level of all logs, and later tests would miss their warnings."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if handler in handlers]


@pytest.mark.usefixtures("logs_as_before")
@pytest.mark.parametrize("crossing", CROSSINGS, ids=name)
def test_scenario(crossing: Crossing, servers: Pool, tmp_path: Path) -> None:
    """All that a user does, in one combination."""
    failed: list[str] = []
    with staged(crossing, servers, tmp_path) as stage:
        for step in STEPS:
            failed += trouble(step, stage)
            if len(failed) >= ENOUGH:
                break
    gc.collect()  # now, and not in whatever test comes next

    if failed:
        pytest.fail("\n".join(failed))


def trouble(step: Callable[[Stage], None], stage: Stage) -> list[str]:
    """The step, if it failed; how, is printed."""
    try:
        step(stage)
    except Exception as error:  # noqa: BLE001 - the other steps are tried all the same
        traceback.print_exception(error)
        return [f"{step.__name__}: {type(error).__name__}: {str(error)[:400]}"]
    return []


def test_every_possible_pair_is_there() -> None:
    """A value that was added to an axis meets all others that it can meet."""
    assert missing_in(CROSSINGS) == set()
