"""Exactly one body, whatever is delivered twice; at least one and one result, whoever is killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chord
from celery.result import AsyncResult

from acceptance.worker import PATIENCE, TICK
from chords.app import condemn, verdict
from chords.stage import UNLOCK, Stage, eventually, lines, staged
from servers.pool import Pool

CHORDS, PARTS = 20, 20


@pytest.fixture(scope="module", params=["postgresql", "mariadb", "sqlite"])
def stage(request: pytest.FixtureRequest, servers: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One worker for all tests of a kind. Tasks that are lost with their process are delivered again."""
    careful = {"task_acks_late": True, "task_reject_on_worker_lost": True}
    mortal = {"result_backend": "chords.app:MortalBackend"}
    with staged(servers, request.param, tmp_path_factory.mktemp("stage"), **mortal, **careful) as stage:
        yield stage
        assert UNLOCK not in stage.worker.log


def settled(stage: Stage) -> None:
    """Return when whatever comes twice has come, and look that no part is left behind."""
    stage.settle()
    assert eventually(lambda: stage.count("parts"), 0)


def body_runs(path: Path, body: AsyncResult) -> int:
    """How often a body has run, always under the same id."""
    assert set(lines(path)) <= {body.id}
    return len(lines(path))


def test_a_fifth_of_the_parts_is_delivered_twice(stage: Stage, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(CHORDS)]
    sent = [chord([stage.doubled(n) for n in range(PARTS)])(stage.note(path=str(path))) for path in paths]
    assert [body.get(timeout=PATIENCE) for body in sent] == [list(range(PARTS))] * CHORDS
    settled(stage)
    assert [body_runs(path, body) for path, body in zip(paths, sent, strict=True)] == [1] * CHORDS
    assert stage.worker.log.count("Task doubled[") >= CHORDS * PARTS * 2 * 6 // 5  # received and succeeded


def test_parts_are_killed_while_they_run(stage: Stage, tmp_path: Path) -> None:
    """A fifth of them dies with its process, and is delivered again."""
    path, deaths = tmp_path / "body", [tmp_path / f"death-{n}" for n in range(PARTS)]
    for death in deaths[::5]:
        death.touch()
    body = chord([stage.mortal(n, str(death)) for n, death in enumerate(deaths)])(stage.note(path=str(path)))
    assert body.get(timeout=PATIENCE) == list(range(PARTS))
    settled(stage)
    assert not any(death.exists() for death in deaths)
    assert body_runs(path, body) == 1


def test_a_process_is_killed_between_a_result_and_the_body(stage: Stage, tmp_path: Path) -> None:
    """The part's result is stored, so the broker does not deliver it again: it counts all the same, and once."""
    path = tmp_path / "body"
    condemn(path, "uncounted")
    body = chord([stage.number(n) for n in range(PARTS)])(stage.note(path=str(path)))
    sweep_until_dispatched(stage)
    assert body.get(timeout=PATIENCE) == list(range(PARTS))
    settled(stage)
    assert not verdict(path, "uncounted").exists()
    assert body_runs(path, body) == 1


def test_the_elected_process_is_killed(stage: Stage, tmp_path: Path) -> None:
    """Right before it sends the body, or right after: another takes over when the lease is over."""
    early, late = tmp_path / "early", tmp_path / "late"
    condemn(early, "before")
    condemn(late, "after")
    bodies = {path: chord([stage.number(1), stage.number(2)])(stage.note(path=str(path))) for path in (early, late)}
    assert bodies[late].get(timeout=PATIENCE) == [1, 2]
    sweep_until_dispatched(stage)
    assert bodies[early].get(timeout=PATIENCE) == [1, 2]
    assert not verdict(early, "before").exists()
    assert not verdict(late, "after").exists()
    assert eventually(lambda: body_runs(early, bodies[early]), 1)
    assert eventually(lambda: body_runs(late, bodies[late]), 2)
    settled(stage)
    assert [len(lines(path)) for path in (early, late)] == [1, 2]
    assert [results_of(stage, body) for body in bodies.values()] == [1, 1]


def sweep_until_dispatched(stage: Stage) -> None:
    """Do what a cleanup does until no chord is open. Celery does not deliver a task again whose result is stored."""
    deadline = time.monotonic() + PATIENCE
    while stage.count("chords WHERE date_dispatched IS NULL"):
        assert time.monotonic() < deadline
        stage.app.backend.sweep_chords()
        time.sleep(TICK)


def results_of(stage: Stage, body: AsyncResult) -> int:
    """How many results of a body are stored."""
    assert stage.database is not None
    ((count,),) = stage.database.execute(f"SELECT COUNT(*) FROM celery_taskmeta WHERE task_id = '{body.id}'")
    return int(count)
