"""Chords that a real worker ends by the results of their members, within an interval of its upkeep."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from celery import chord, states
from celery.exceptions import ChordError

from acceptance.worker import PATIENCE
from chords.stage import Stage, eventually, staged
from servers.pool import Pool
from support import CELERY, need

KINDS = ("postgresql", "mariadb", "sqlite")
#: Seconds between two looks of the worker; the default is 3.
INTERVAL = 0.3
HAS_BATCHES = find_spec("celery_batches") is not None


@pytest.fixture(scope="module", params=KINDS)
def stage(request: pytest.FixtureRequest, servers: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One worker for all tests of a kind."""
    folder = tmp_path_factory.mktemp("stage")
    imports = ["chords.app", *(["chords.batches"] if HAS_BATCHES else [])]
    with staged(servers, request.param, folder, imports=imports, database_upkeep_interval=INTERVAL) as stage:
        if HAS_BATCHES:
            from chords import batches

            batches.equipped(stage.app)
        yield stage


def end_of(body: Any) -> Any:
    """What a body returns."""
    return body.get(timeout=PATIENCE, follow_parents=False)


def error_of(body: Any) -> str:
    """How a body failed."""
    with pytest.raises(ChordError) as raised:
        end_of(body)
    return str(raised.value)


@pytest.mark.parametrize("task", ["batch", "bare_batch"])
def test_batches_in_a_header(stage: Stage, task: str) -> None:
    need("celery_batches")
    batch = getattr(stage, task)
    assert end_of(chord([batch(1), stage.number(2), batch(3)])(stage.number())) == [1, 2, 3]
    assert end_of(chord([batch(1), batch(3)])(stage.number())) == [1, 3]


def test_a_batch_that_fails_in_a_header(stage: Stage) -> None:
    need("celery_batches")
    assert "ValueError('no')" in error_of(chord([stage.failing_batch("no"), stage.number(2)])(stage.number()))


def test_a_task_that_states_its_own_end(stage: Stage) -> None:
    """And raises Ignore, so that no worker stores anything."""
    assert end_of(chord([stage.state(states.SUCCESS, 1), stage.number(2)])(stage.number())) == [1, 2]
    error = {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}
    assert "ValueError('no')" in error_of(chord([stage.state(states.FAILURE, error), stage.number(2)])(stage.number()))


@pytest.mark.parametrize("how", ["mark_as_done", "store_result", "mark_as_failure"])
def test_a_task_that_another_process_ends(stage: Stage, how: str) -> None:
    """The task has raised Ignore before."""
    body = chord([stage.state("WAITING", None), stage.number(2)])(stage.number())
    [waiting, _] = body.parent.results
    assert eventually(lambda: waiting.state, "WAITING")
    ways = {
        "mark_as_done": lambda backend: backend.mark_as_done(waiting.id, "later"),
        "store_result": lambda backend: backend.store_result(waiting.id, "later", states.SUCCESS),
        "mark_as_failure": lambda backend: backend.mark_as_failure(waiting.id, ValueError("no")),
    }
    ways[how](stage.app.backend)
    if how == "mark_as_failure":
        assert "ValueError('no')" in error_of(body)
    else:
        assert end_of(body) == ["later", 2]


@pytest.mark.skipif(CELERY < (5, 6), reason="Celery stores that a task is revoked when it would have run")
@pytest.mark.parametrize("count", [1, 2])
def test_members_that_are_revoked_long_before_their_time(stage: Stage, count: int) -> None:
    """The chord learns now, and not when they would have run."""
    later = [stage.number(n).set(countdown=3600) for n in range(count)]
    body = chord([stage.number(7), *later])(stage.number())
    revoked = [part.id for part in body.parent.results[1:]]
    stage.app.control.revoke(revoked, reply=True, timeout=PATIENCE, limit=1)
    assert "TaskRevokedError('revoked')" in error_of(body)
