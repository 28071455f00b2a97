"""A header that is joined before all its members have returned waits for them, but no longer than it may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, chord, group, states
from celery.exceptions import ChordError
from celery.result import AsyncResult

from acceptance.worker import PATIENCE
from chords.stage import Stage, lines, staged
from servers.pool import Pool
from support import CELERY

pytestmark = pytest.mark.skipif(CELERY >= (5, 6), reason="Celery counts every member, so there is none to wait for")

#: Seconds until a member runs: more than a join may take by default, and more than a test.
LATE, NEVER = 5, 3600


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def stage(request: pytest.FixtureRequest, servers: Pool, tmp_path: Path, timeout: float) -> Iterator[Stage]:
    """A worker that lets a join take so many seconds."""
    with staged(servers, request.param, tmp_path, result_chord_join_timeout=timeout) as stage:
        yield stage


def too_early(stage: Stage, path: Path, seconds: int) -> tuple[AsyncResult, AsyncResult]:
    """Send a chord that Celery takes for complete without a member which runs later; return the body and the member.

    Before Celery sends the last task of the group, it sets the size of the header to that of the group.
    """
    pair = group(stage.number().set(countdown=seconds), stage.number())
    body = chord([stage.number(1), chain(stage.number(2), pair)])(stage.note(path=str(path)))
    return body, body.parent.results[1].results[0]


@pytest.mark.parametrize("timeout", [0.5])
def test_a_member_that_never_returns(stage: Stage, tmp_path: Path) -> None:
    """The body fails."""
    body, member = too_early(stage, tmp_path / "body", NEVER)
    with pytest.raises(ChordError, match="Join error: TimeoutError"):
        body.get(timeout=PATIENCE, follow_parents=False)
    assert (body.state, member.state) == (states.FAILURE, states.PENDING)
    assert stage.count("chords WHERE date_dispatched IS NULL") == 0
    assert lines(tmp_path / "body") == []


@pytest.mark.parametrize("timeout", [PATIENCE])
def test_a_member_that_returns_late(stage: Stage, tmp_path: Path) -> None:
    """The body has its result as well."""
    body, _ = too_early(stage, tmp_path / "body", LATE)
    assert body.get(timeout=PATIENCE) == [1, [2, 2]]
    stage.settle()
    assert lines(tmp_path / "body") == [body.id]
