"""Where chords cannot be native, or may not be, they work as with Celery's own database backend: by polling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import chord
from celery.exceptions import ChordError

import legacy
from acceptance.worker import PATIENCE
from chords.stage import UNLOCK, Stage, staged
from servers import Database
from servers.pool import Pool

PASSWORD = "secret"


def clerk(database: Database) -> str:
    """The URL of a role that may use the tables of an older Celery, which are all there is, and create none."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    legacy.tables("5.4.0", engine)
    engine.dispose()
    database.server.create_role("clerk", PASSWORD, database.name, ddl=False)
    return database.server.url(database.name, user="clerk", password=PASSWORD)


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def stage(request: pytest.FixtureRequest, servers: Pool, tmp_path: Path) -> Iterator[Stage]:
    """Without the tables of chords; on SQLite, which has no roles, with native chords turned off."""
    has_roles = request.param != "sqlite"
    settings = {"database_native_chords": has_roles, "result_chord_retry_interval": 0.1}
    with staged(servers, request.param, tmp_path, user=clerk if has_roles else None, **settings) as stage:
        yield stage


def test_chords_are_polled_for(stage: Stage) -> None:
    body = chord([stage.number(n) for n in range(5)])(stage.total())
    assert body.get(timeout=PATIENCE) == 10
    failed = chord([stage.number(1), stage.fail("no")])(stage.total())
    with pytest.raises(ChordError, match="ValueError"):
        failed.get(timeout=PATIENCE, follow_parents=False)
    assert stage.worker.log.count(UNLOCK) >= 2
    assert stage.app.backend.sweep_chords() == 0
    stage.app.backend.cleanup()


def test_a_part_cannot_be_added(stage: Stage) -> None:
    """As with Celery's own database backend: a chord that is polled for has as many parts as it was sent."""
    with pytest.raises(NotImplementedError, match="add_to_chord"):
        stage.app.backend.add_to_chord("a group", stage.app.AsyncResult("added"))
