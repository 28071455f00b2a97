"""What becomes of a body whose header failed, and who is told; Celery's own Redis backend is the yardstick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group, states
from celery.exceptions import ChordError
from celery.result import AsyncResult

from acceptance.worker import PATIENCE
from chords.stage import AND_YARDSTICK, UNLOCK, Stage, eventually, lines, staged
from servers.pool import Pool
from support import CELERY

#: What Celery says of a failure in a header that is a tree.
REDIS_JOIN_ERROR = "Join error: ValueError('no')"


@pytest.fixture(scope="module", params=AND_YARDSTICK)
def stage(request: pytest.FixtureRequest, servers: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One worker for all tests of a kind."""
    folder = tmp_path_factory.mktemp("stage")
    with staged(servers, request.param, folder, task_allow_error_cb_on_chord_header=True) as stage:
        yield stage


@pytest.fixture(autouse=True)
def no_traces(stage: Stage) -> Iterator[None]:
    """Nobody polls, and no part is left behind."""
    yield
    assert UNLOCK not in stage.worker.log
    if stage.database is not None:
        assert eventually(lambda: stage.count("parts"), 0)
        assert stage.count("chords WHERE date_dispatched IS NULL") == 0


def error_of(result: AsyncResult) -> str:
    """How a body failed; not how its header did, which whoever waits for the body may see earlier."""
    with pytest.raises(ChordError) as raised:
        result.get(timeout=PATIENCE, follow_parents=False)
    assert result.state == states.FAILURE
    return str(raised.value)


def dependency(result: AsyncResult, error: str) -> str:
    """The message of the error of a body one of whose parts failed."""
    return f"Dependency {result.id} raised {error}"


def better_than_redis(stage: Stage) -> None:
    """Skip where the yardstick is of no use: with Celery's own backend, the body of such a chord never runs."""
    if stage.database is None:
        pytest.skip("Celery waits for ever")


def part_of(body: AsyncResult, index: int = 0) -> Any:
    """A result of the header."""
    return body.parent.results[index]


def test_one_part_fails(stage: Stage) -> None:
    body = chord([stage.number(1), stage.fail("no"), stage.number(2)])(stage.total())
    assert error_of(body) == dependency(part_of(body, 1), "ValueError('no')")
    assert [part.state for part in body.parent.results] == [states.SUCCESS, states.FAILURE, states.SUCCESS]


def test_the_first_of_several_is_named(stage: Stage) -> None:
    """The first in the order of the header, whichever returned first."""
    body = chord([stage.number(1), stage.fail("a"), stage.fail("b")])(stage.total())
    assert error_of(body) == dependency(part_of(body, 1), "ValueError('a')")


def test_the_only_part_fails(stage: Stage) -> None:
    body = chord([stage.fail("no")])(stage.total())
    assert error_of(body) == dependency(part_of(body), "ValueError('no')")


def test_a_chain_in_the_header_fails_early(stage: Stage) -> None:
    """The part is the last task of the chain, which never runs."""
    body = chord([stage.number(1), chain(stage.fail("no"), stage.add(1))])(stage.total())
    assert error_of(body) == dependency(part_of(body, 1), "ValueError('no')")


def test_a_group_in_the_header_fails(stage: Stage) -> None:
    body = chord([stage.number(1), group(stage.fail("no"), stage.number(2))])(stage.total())
    assert error_of(body).endswith(" raised ValueError('no')")


def test_a_chain_in_the_header_ends_in_a_group_that_fails(stage: Stage) -> None:
    """The header is joined as a tree."""
    body = chord([stage.number(1), chain(stage.number("no"), group(stage.fail(), stage.number()))])(stage.total())
    assert error_of(body) in (dependency(part_of(body, 1).results[0], "ValueError('no')"), REDIS_JOIN_ERROR)


def test_a_chord_in_the_header_fails(stage: Stage) -> None:
    """The error of the inner body is the error of a part of the outer."""
    better_than_redis(stage)
    inner = chord([stage.fail("no"), stage.number(1)], stage.total())
    error = error_of(chord([stage.number(1), inner])(stage.total()))
    assert error.startswith("Dependency ")
    assert " raised ChordError(" in error
    assert "ValueError('no')" in error


def test_a_group_as_body_fails(stage: Stage) -> None:
    """Each of its tasks."""
    body = chord([stage.fail("no"), stage.number(1)])(group(stage.number(), stage.total()))
    for result in body.results:
        with pytest.raises((ChordError, ValueError), match="no"):
            result.get(timeout=PATIENCE, follow_parents=False)


def test_a_chain_as_body_fails(stage: Stage) -> None:
    """Whoever waits for its end learns of it."""
    body = chord([stage.fail("no"), stage.number(1)])(chain(stage.total(), stage.add(1)))
    assert error_of(body).endswith(" raised ValueError('no')")


def test_a_revoked_part(stage: Stage) -> None:
    """It has returned, and failed."""
    sent = chord([stage.number(1), stage.number(2).set(countdown=1)])
    body = sent.apply_async(kwargs={"body": stage.total()})
    stage.app.control.revoke(part_of(body, 1).id, reply=True, timeout=PATIENCE, limit=1)
    assert error_of(body) == dependency(part_of(body, 1), "TaskRevokedError('revoked')")


def test_the_body_cannot_be_sent(stage: Stage) -> None:
    body = chord([stage.number(1), stage.number(2)])(stage.number().set(serializer="unheard-of"))
    assert error_of(body).startswith("Callback error: SerializerNotInstalled(")


@pytest.mark.parametrize("end", ["chain", "group"])
def test_a_chord_in_the_header_with_a_body_of_several_fails(stage: Stage, end: str) -> None:
    """A failure of its header is one of each task that the body ends in."""
    better_than_redis(stage)
    body = chain(stage.total(), stage.add(1)) if end == "chain" else group(stage.number(), stage.total())
    error = error_of(chord([stage.number(1), chord([stage.fail("no"), stage.number(1)], body)])(stage.number()))
    assert "ValueError('no')" in error


@pytest.mark.skipif(CELERY < (5, 6), reason="Celery counts the group as one part, and its results are nowhere")
def test_a_tree_of_results_that_are_ignored(stage: Stage) -> None:
    """The parts bring their results along, so nobody waits for those that are not stored."""
    better_than_redis(stage)
    ignored = stage.number().set(ignore_result=True)
    body = chord([stage.number(1), chain(stage.number(2), group(ignored, stage.number()))])(stage.number())
    assert body.get(timeout=PATIENCE) == [1, [2, 2]]


def test_errback_of_the_body(stage: Stage, tmp_path: Path) -> None:
    """Called once, with the body's id and error."""
    told = tmp_path / "told"
    body = chord([stage.fail("no"), stage.number(1)])(stage.total().on_error(stage.note_error(path=str(told))))
    error = ChordError(error_of(body))
    assert eventually(lambda: lines(told), [f"{body.id} {error!r}"])


def test_errback_of_the_chord(stage: Stage, tmp_path: Path) -> None:
    """It is the body's, and, as the setting says, also that of each part."""
    told = tmp_path / "told"
    sent = chord([stage.fail("no"), stage.number(1)], stage.total())
    sent.link_error(stage.note_error(path=str(told)))
    body = sent.apply_async()
    expected = [f"{body.id} {ChordError(error_of(body))!r}", f"{part_of(body).id} ValueError('no')"]
    assert eventually(lambda: sorted(lines(told)), sorted(expected))


def test_errback_of_a_part(stage: Stage, tmp_path: Path) -> None:
    told = tmp_path / "told"
    body = chord([stage.fail("no").on_error(stage.note_error(path=str(told))), stage.number(1)])(stage.total())
    error_of(body)
    assert eventually(lambda: lines(told), [f"{part_of(body).id} ValueError('no')"])


def test_errbacks_of_a_group_as_body(stage: Stage, tmp_path: Path) -> None:
    """Each of its tasks has its own."""
    told = tmp_path / "told"
    tasks = (stage.number().on_error(stage.note_error(path=str(told))) for _ in range(2))
    body = chord([stage.fail("no"), stage.number(1)])(group(tasks))
    assert eventually(lambda: sorted(line.split()[0] for line in lines(told)), sorted(part.id for part in body.results))
    assert all("no" in line for line in lines(told))
