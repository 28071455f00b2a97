"""All behind PgBouncer in transaction mode: a real worker stores and joins chords, with two server connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import group

from acceptance.worker import PATIENCE
from chords.stage import UNLOCK, Stage, eventually, staged
from chords.test_canvas import CHORDS, SHAPES, SIZES, check_bodies
from servers import Database, PgBouncer, PostgreSQL
from servers.pool import Pool, or_skip

#: Fewer server connections than processes that use them, so that a transaction's is rarely that of the one before.
FEW = {"default_pool_size": "2"}
SETTINGS = {"connect_args": {"prepare_threshold": None}}


pytestmark = pytest.mark.drivers("psycopg")


@pytest.fixture(scope="module", params=["polling", "listening"])
def stage(request: pytest.FixtureRequest, servers: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One worker for all tests; a caller polls, or listens on a direct way."""
    with or_skip("postgresql"):
        server = servers.server("postgresql")
    assert isinstance(server, PostgreSQL)
    with or_skip("pgbouncer"), PgBouncer(server, FEW) as bouncer, servers.database("postgresql") as direct:
        listen = {"database_listen_url": direct.url} if request.param == "listening" else {"database_listen": False}
        settings = {"database_engine_options": SETTINGS, **listen}
        folder = tmp_path_factory.mktemp("stage")
        with staged(servers, direct, folder, lambda database: bouncer.url(database.name), **settings) as stage:
            yield stage


@pytest.fixture(autouse=True)
def no_traces(stage: Stage) -> Iterator[None]:
    """Nobody polls for the end of a header, nothing goes wrong on either side, and no part is left behind."""
    yield
    assert UNLOCK not in stage.worker.log
    assert stage.worker.complaints == []
    assert eventually(lambda: stage.count("parts"), 0)
    assert database_of(stage).errors() == []


def database_of(stage: Stage) -> Database:
    """The database itself."""
    assert stage.database is not None
    return stage.database


def test_storing_and_waiting(stage: Stage) -> None:
    """A group that is awaited as a whole, and again from the database."""
    sent = group([stage.number(n) for n in range(200)]).apply_async()
    assert sent.get(timeout=PATIENCE) == list(range(200))
    again = stage.app.GroupResult(sent.id, [stage.app.AsyncResult(result.id) for result in sent.results])
    assert (again.completed_count(), again.get(timeout=PATIENCE)) == (200, list(range(200)))


@pytest.mark.parametrize("parts", SIZES)
def test_the_body_runs_once(stage: Stage, tmp_path: Path, parts: int) -> None:
    check_bodies(stage, tmp_path, [parts])


@pytest.mark.parametrize("shape", ["chords in chords in header", "chord in body"])
def test_chords(stage: Stage, shape: str) -> None:
    made, expected = SHAPES[shape]
    assert made(stage).apply_async().get(timeout=PATIENCE) == expected


def test_many_chords_at_once(stage: Stage, tmp_path: Path) -> None:
    """One body for each."""
    check_bodies(stage, tmp_path, [2] * CHORDS)
