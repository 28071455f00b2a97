"""Real workers that are killed: each task leaves one effect, and the result that goes with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery, chain, chord
from celery.result import AsyncResult

from acceptance.shop import make_app
from acceptance.worker import PATIENCE, TICK, Worker, running, settings_for
from exactly_once.app import STEPS, equipped
from exactly_once.stage import EFFECTS
from servers import Database, Redis
from servers.pool import on

#: How many tasks, and how many of them are not killed for each that is.
TASKS, SPARED = 1000, 39
#: Seconds after which Redis delivers again what a worker has taken and not acknowledged.
VISIBLE = 2


class Scene:
    """A caller, a database with a table of the tasks' own, and what a worker is started with."""

    def __init__(self, folder: Path, database: Database, redis: Redis) -> None:
        self.folder = folder
        self.settings = settings_for(
            folder,
            "exactly_once.app:MortalBackend",
            database_url=database.url,
            broker_url=redis.url(),
            broker_transport_options={"visibility_timeout": VISIBLE, "polling_interval": TICK},
            imports=["exactly_once.app"],
            task_track_started=False,
            worker_cancel_long_running_tasks_on_connection_loss=False,
        )
        self.app: Celery = equipped(make_app(self.settings))
        self.engine = sa.create_engine(database.url)
        EFFECTS.create(self.engine)

    def effects(self) -> Counter[str]:
        """How often each task has left a row."""
        with self.engine.connect() as connection:
            return Counter(connection.execute(sa.select(EFFECTS.c.task_id)).scalars())

    def worker(self, name: str = "once", processes: int = 2) -> Worker:
        """A worker of this scene, not started."""
        return Worker(self.folder, self.settings, f"--concurrency={processes}", name=name)

    def killed_at(self, step: str) -> dict[str, Any]:
        """The keywords of a task that is to die at a step."""
        return {"step": step, "graves": str(self.folder)}

    @property
    def deaths(self) -> int:
        """How many tasks were killed."""
        return sum(1 for path in self.folder.iterdir() if path.name.count("-") == 4)


@pytest.fixture
def scene(tmp_path: Path, database: Database, redis: Redis) -> Iterator[Scene]:
    made = Scene(tmp_path, database, redis)
    yield made
    made.engine.dispose()
    made.app.backend.database.engine.dispose()
    made.app.close()


def found(result: AsyncResult) -> Any:
    """What a task returned; raises what it raised."""
    return result.get(timeout=PATIENCE, interval=TICK)


def until_acknowledged(scene: Scene) -> None:
    """Wait until no message is left, of those that were delivered again too."""
    deadline = time.monotonic() + PATIENCE
    with scene.app.connection_for_read() as connection:
        redis = connection.default_channel.client
        while redis.llen("celery") or redis.hlen("unacked"):
            assert time.monotonic() < deadline, redis.hgetall("unacked")
            time.sleep(TICK)


@on("postgresql", "mariadb", "sqlite")
def test_a_thousand_tasks_with_kills(scene: Scene) -> None:
    """Some are killed, at each step in turn, and as many are delivered twice at the same time."""
    effect = scene.app.tasks["once.effect"]
    results = []
    for n in range(TASKS):
        is_killed = n % (SPARED + 1) == 0
        keywords = scene.killed_at(STEPS[n // (SPARED + 1) % len(STEPS)]) if is_killed else {}
        results.append(effect.apply_async((n,), keywords))
        if n % (SPARED + 1) == 1:
            effect.apply_async((n,), task_id=results[-1].id)
    with running(scene.worker(processes=4)):
        assert [found(result) for result in results] == [*range(TASKS)]
        until_acknowledged(scene)
    assert scene.effects() == {str(n): 1 for n in range(TASKS)}
    assert scene.deaths == TASKS // (SPARED + 1)


@on("postgresql", "mariadb", "sqlite")
def test_chords_and_chains_go_on(scene: Scene) -> None:
    """Also where all that was done is the commit: exactly one body, one next, and one effect of each."""
    effect, total, next_one = (scene.app.tasks[f"once.{name}"] for name in ("effect", "total", "next_one"))
    chords, chains = [], []
    for n, step in enumerate(STEPS, start=1):
        killed, first = scene.killed_at(step), 1000 * n
        chords.append(([effect.s(first, **killed), effect.s(first + 1), effect.s(first + 2, **killed)], total.s()))
        chains.append(chain(effect.s(first + 10, **killed), next_one.s(), next_one.s()))
    with running(scene.worker(processes=4)):
        results = [chord(header)(body) for header, body in chords]
        ends = [each() for each in chains]
        assert [found(result) for result in results] == [3000 * n + 3 for n in range(1, len(STEPS) + 1)]
        assert [found(result) for result in ends] == [1000 * n + 12 for n in range(1, len(STEPS) + 1)]
        until_acknowledged(scene)
    assert scene.deaths == 3 * len(STEPS)
    left = [f"{1000 * n + k}" for n in range(1, len(STEPS) + 1) for k in (0, 1, 2, 10, 11, 12)]
    assert scene.effects() == {**dict.fromkeys(left, 1), **{f"{3000 * n + 3}": 1 for n in range(1, len(STEPS) + 1)}}


@on("postgresql")
def test_the_whole_worker_is_killed(scene: Scene) -> None:
    """While one of its tasks is right before the commit, and one right after it."""
    effect, first = scene.app.tasks["once.effect"], scene.worker("once-1")
    first.start()
    results = [
        effect.delay(n, hangs=True, **scene.killed_at(step)) for n, step in enumerate(("completed", "committed"))
    ]
    deadline = time.monotonic() + PATIENCE
    while scene.deaths < len(results):
        assert time.monotonic() < deadline, first.log
        time.sleep(TICK)
    first.kill()
    with running(scene.worker("once-2")), scene.app.connection_for_read() as connection:
        time.sleep(2 * VISIBLE)
        connection.default_channel.qos.restore_visible(num=10)  # as each worker does, now and then
        until_acknowledged(scene)
    assert [found(result) for result in results] == [0, 1]
    assert scene.effects() == {"0": 1, "1": 1}
