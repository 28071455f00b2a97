"""A chord that nobody ends is ended by an operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from celery_sql_results import DatabaseBackend
from celery_sql_results.cli.commands.chords import command
from celery_sql_results.cli.desk import Ending
from cli.doing import sender, worker
from cli.run import PATIENCE
from servers import Database, Redis
from servers.pool import on

HEADER = ("m-1", "m-2")


class Scene:
    """A chord that was begun, and an operator."""

    def __init__(self, database: Database, redis: Redis, folder: Path) -> None:
        self.settings: dict[str, Any] = {"broker_url": redis.url(), "result_backend": f"sql+{database.url}"}
        self.folder = folder
        self.app = sender(**self.settings)
        self.backend: DatabaseBackend = self.app.backend
        self.body = self.app.signature("doing.total", task_id="body", app=self.app)
        header = [self.app.AsyncResult(id_) for id_ in HEADER]
        self.backend.apply_chord(("group-1", header), self.body)

    def kick(self, *ids: str, **how: Any) -> int:
        """What an operator does, who has agreed."""
        flags = [f"--{name.replace('_', '-')}" for name, is_set in {"yes": True, **how}.items() if is_set]
        obj = SimpleNamespace(app=self.app, no_color=True)
        return int(command.main(["--kick", *flags, *ids], obj=obj, standalone_mode=False))

    def part(self, id_: str, position: int) -> None:
        """A part returns, but nobody looks whether that was the last one."""
        rows = self.backend.database.rows.chords
        assert rows
        part = {"group_id": "group-1", "task_id": id_, "position": position, "status": "SUCCESS"}
        rows.put_part({**part, "result": b"1", "content_type": "application/json"})

    @property
    def claims(self) -> list[tuple[Any, ...]]:
        """Who has claimed each chord, and when its body was sent."""
        chords = self.backend.models.chords
        with self.backend.database.engine.connect() as connection:
            return [*map(tuple, connection.execute(sa.select(chords.c.claimed_by, chords.c.date_dispatched)))]

    @property
    def waiting(self) -> int:
        """How many messages wait at the broker."""
        with self.app.connection_for_read() as connection:
            return int(connection.default_channel._size("celery"))


@pytest.fixture
def scene(database: Database, redis: Redis, tmp_path: Path) -> Iterator[Scene]:
    """One of which nothing is left open."""
    found = Scene(database, redis, tmp_path)
    yield found
    found.backend.database.engine.dispose()
    found.app.close()


@on("postgresql", "mariadb", "sqlite")
def test_complete(scene: Scene) -> None:
    """Its body is sent, once, and runs."""
    for position, id_ in enumerate(HEADER):
        scene.part(id_, position)

    assert [scene.kick("group-1", dry_run=True), scene.waiting] == [0, 0]
    assert [scene.kick("group"), scene.waiting] == [0, 1]
    assert [scene.kick("group-1"), scene.waiting] == [0, 1]
    with worker(scene.folder, **scene.settings):
        assert scene.app.AsyncResult("body").get(timeout=PATIENCE) == 2


def test_incomplete(scene: Scene) -> None:
    """It is refused, with what is missing; then its body fails, if that is asked for."""
    scene.part("m-1", 0)

    with pytest.raises(Ending, match=r"1 members are missing: m-2 \(no result\)"):
        scene.kick("group-1")
    assert [scene.kick("group-1", fail=True), scene.waiting] == [0, 0]
    with pytest.raises(Exception, match="ended by an operator"):
        scene.app.AsyncResult("body").get(timeout=PATIENCE)
    assert scene.kick("group-1") == 0


def test_parts_that_somebody_else_has_stored(scene: Scene) -> None:
    """Members whose results are there count, though no part was stored."""
    for id_ in HEADER:
        scene.backend.store_result(id_, 1, "SUCCESS")

    assert [scene.kick("group-1"), scene.waiting] == [0, 1]


def test_claimed(scene: Scene) -> None:
    """A process that is about to end it is not disturbed."""
    for position, id_ in enumerate(HEADER):
        scene.part(id_, position)
    rows = scene.backend.database.rows.chords
    assert rows
    assert rows.claim("group-1", "another", scene.backend._services.hand_over.lease)

    with pytest.raises(Ending, match="a process is about to end it"):
        scene.kick("group-1")
    assert scene.waiting == 0


def test_unknown(scene: Scene) -> None:
    """There is nothing to kick."""
    with pytest.raises(Ending) as told:
        scene.kick("nothing")
    assert told.value.exit_code == 4


@pytest.mark.parametrize("pattern", ["?", "*", "group-?", "[g]roup-1", "%", "_"])
def test_an_id_is_no_pattern(scene: Scene, pattern: str) -> None:
    """What would fit as a pattern is no id."""
    for position, id_ in enumerate(HEADER):
        scene.part(id_, position)

    with pytest.raises(Ending) as told:
        scene.kick(pattern)
    assert (told.value.exit_code, scene.waiting) == (4, 0)


@pytest.mark.parametrize("parts", [1, 2])
def test_nothing_is_kept_of_the_body(scene: Scene, database: Database, parts: int) -> None:
    """It can neither be sent nor let fail, which is told before the chord is claimed."""
    for position, id_ in enumerate(HEADER[:parts]):
        scene.part(id_, position)
    database.execute("UPDATE celery_taskmeta_chords SET body = NULL, bare_body = NULL")

    with pytest.raises(Ending, match="group-1: nothing of its body is kept"):
        scene.kick("group-1", fail=True)
    assert scene.claims == [(None, None)]


def test_the_broker_is_away(scene: Scene) -> None:
    """Then the body does not fail: nothing is done."""
    for position, id_ in enumerate(HEADER):
        scene.part(id_, position)
    scene.app.conf.broker_url = "redis://127.0.0.1:1/0"

    with pytest.raises(Ending, match="cannot be reached"):
        scene.kick("group-1")
    assert scene.claims == [(None, None)]
