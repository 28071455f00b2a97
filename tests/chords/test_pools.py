"""Chords whose parts return at once in greenlets and threads of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chords.stage import UNLOCK, Stage, staged
from chords.test_canvas import check_bodies
from servers.pool import Pool
from support import need

POOLS = [
    ("postgresql", "gevent"),
    ("mariadb", "gevent"),
    ("sqlite", "gevent"),
    ("postgresql", "eventlet"),
    ("postgresql", "threads"),
]


@pytest.fixture(params=POOLS, ids="-".join)
def stage(request: pytest.FixtureRequest, servers: Pool, tmp_path: Path) -> Iterator[Stage]:
    """A worker with such a pool."""
    kind, pool = request.param
    need(pool)
    with staged(servers, kind, tmp_path, pool=pool) as stage:
        yield stage


@pytest.mark.parametrize("chords", [1, 20])
def test_the_body_runs_once(stage: Stage, tmp_path: Path, chords: int) -> None:
    """After ten parts."""
    check_bodies(stage, tmp_path, [10] * chords)
    assert UNLOCK not in stage.worker.log
    assert stage.worker.complaints == []
    assert stage.count("parts") == 0
    assert stage.count("chords WHERE date_dispatched IS NULL") == 0
    assert stage.database.errors() == []  # type: ignore[union-attr]
