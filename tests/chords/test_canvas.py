"""Every shape of chord with real workers, and Celery's own Redis backend as the yardstick of what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.canvas import StampingVisitor
from celery.result import AsyncResult

from acceptance.worker import PATIENCE
from chords.stage import AND_YARDSTICK, UNLOCK, Stage, eventually, lines, staged
from servers.pool import Pool

CHORDS = 100
#: Sizes of headers.
SIZES = (0, 1, 10, 1000)

#: Each shape: what is sent, and what its end returns.
SHAPES: dict[str, tuple[Callable[[Stage], Any], Any]] = {
    "of a generator": (lambda t: chord((t.number(n) for n in range(5)), t.number()), list(range(5))),
    "one signature twice": (lambda t: chord([t.number(1)] * 2, t.number()), [1, 1]),
    "a body that takes nothing": (lambda t: chord([t.number(1), t.number(2)], t.number(7).set(immutable=True)), 7),
    "results that are ignored": (
        lambda t: chord([t.number(n).set(ignore_result=True) for n in range(3)], t.number()),
        [0, 1, 2],
    ),
    "group in header": (
        lambda t: chord([t.number(0), group(t.number(1), t.number(2)), t.number(3)], t.in_order()),
        [0, 1, 2, 3],  # Celery makes them members of the header
    ),
    "groups in groups in header": (
        lambda t: chord([group(t.number(0), group(t.number(1), t.number(2))), t.number(3)], t.in_order()),
        [0, 1, 2, 3],
    ),
    "chord in header": (
        lambda t: chord([t.number(0), chord([t.number(1), t.number(2)], t.total())], t.number()),
        [0, 3],
    ),
    "chords in chords in header": (
        lambda t: chord([chord([chord([t.number(1), t.number(2)], t.total())] * 2, t.total())] * 2, t.number()),
        [6, 6],
    ),
    "chord in body": (
        lambda t: chord([t.number(1), t.number(2)], chord([t.number(), t.total()], t.number())),
        [[1, 2], 3],
    ),
    "chord with a group as body in header": (
        lambda t: chord([t.number(0), chord([t.number(1), t.number(2)], group(t.total(), t.number()))], t.number()),
        [0, [3, [1, 2]]],
    ),
    "chord with a chain as body in header": (
        lambda t: chord([t.number(0), chord([t.number(1), t.number(2)], chain(t.total(), t.add(1)))], t.number()),
        [0, 4],
    ),
    "group as body": (lambda t: chord([t.number(1), t.number(2)], group(t.number(), t.total())), [[1, 2], 3]),
    "chain in header": (lambda t: chord([chain(t.number(1), t.add(1)), t.number(5)], t.number()), [2, 5]),
    "chain in body": (lambda t: chord([t.number(1), t.number(2)], chain(t.total(), t.add(10))), 13),
    "in a chain": (
        lambda t: chain(t.number(1), chord([t.add(1), t.add(2)], t.total()), t.add(100)),
        105,
    ),
    "group made a chord by a chain": (lambda t: chain(group(t.number(1), t.number(2)), t.total(), t.add(1)), 4),
    "chord made longer by a chain": (lambda t: chord([t.number(1), t.number(2)], t.total()) | t.add(1), 4),
    "chain that ends in a group in header": (
        lambda t: chord([chain(t.number(1), group(t.add(1), t.add(2))), t.number(9)], t.number()),
        [[2, 3], 9],
    ),
    "part replaced by a task": (lambda t: chord([t.replaced(1), t.number(2)], t.number()), [1, 2]),
    "part replaced by a group": (lambda t: chord([t.replaced([7, 7]), t.number(3)], t.number()), [[7, 7], 3]),
    "body replaced": (lambda t: chord([t.number(1), t.number(2)], t.replaced()), [1, 2]),
    "parts that add parts": (
        lambda t: chord([t.extend(1), t.extend(2), t.number(3)], t.in_order()),
        [1, 2, 3, 101, 102],
    ),
}


@pytest.fixture(scope="module", params=AND_YARDSTICK)
def stage(request: pytest.FixtureRequest, servers: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One worker for all tests of a kind."""
    with staged(servers, request.param, tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(autouse=True)
def no_traces(stage: Stage) -> Iterator[None]:
    """Nobody polls, nothing goes wrong, and no part is left behind."""
    yield
    assert UNLOCK not in stage.worker.log
    assert stage.worker.complaints == []
    if stage.database is not None:
        assert eventually(lambda: stage.count("parts"), 0)
        assert stage.count("chords WHERE date_dispatched IS NULL") == 0
        assert stage.database.errors() == []


@pytest.mark.parametrize("shape", SHAPES)
def test_shape(stage: Stage, shape: str) -> None:
    made, expected = SHAPES[shape]
    assert made(stage).apply_async().get(timeout=PATIENCE) == expected


@pytest.mark.parametrize("parts", SIZES)
def test_the_body_runs_once(stage: Stage, tmp_path: Path, parts: int) -> None:
    check_bodies(stage, tmp_path, [parts])


def test_many_at_once(stage: Stage, tmp_path: Path) -> None:
    """Each body runs once."""
    check_bodies(stage, tmp_path, [3] * CHORDS)


def check_bodies(stage: Stage, folder: Path, sizes: Iterable[int]) -> None:
    """Chords of some sizes at once: each body runs, has all results, and does not run again."""
    bodies: dict[Path, AsyncResult] = {}
    values = [[number, *range(1, size)][:size] for number, size in enumerate(sizes)]
    for number, header in enumerate(values):
        path = folder / f"body-{number}"
        bodies[path] = chord([stage.number(value) for value in header])(stage.note(path=str(path)))
    assert [body.get(timeout=PATIENCE) for body in bodies.values()] == values
    stage.settle()
    assert [lines(path) for path in bodies] == [[body.id] for body in bodies.values()]


@pytest.mark.parametrize("shape", ["chord in header", "chord in body"])
def test_every_body_of_a_nest_runs_once(stage: Stage, tmp_path: Path, shape: str) -> None:
    """The inner as well as the outer."""
    inner, outer = (stage.note(path=str(tmp_path / name)) for name in ("inner", "outer"))
    parts = [stage.number(n) for n in range(10)]
    if shape == "chord in header":
        sent = chord([chord(parts, inner), stage.number(10)], outer)
        expected: list[Any] = [list(range(10)), 10]
    else:
        sent = chord(parts, chord([stage.number(), inner], outer))
        expected = [list(range(10))] * 2
    assert sent.apply_async().get(timeout=PATIENCE) == expected
    stage.settle()
    assert [len(lines(tmp_path / name)) for name in ("inner", "outer")] == [1, 1]


def test_a_frozen_chord_is_applied_again(stage: Stage) -> None:
    """The same parts and the same body under the same ids: the second time it runs as well."""
    if stage.database is None:
        pytest.skip("Celery deletes the parts when it has sent the body, and with them those of a quick next run")
    again = chord([stage.number(1), stage.number(2)], stage.note(path=str(stage.folder / "again")))
    again.freeze()
    for times in (1, 2):
        assert again.apply_async().get(timeout=PATIENCE) == [1, 2]
        assert eventually(lambda: len((stage.folder / "again").read_text().split()), times)


def test_stamps_are_kept(stage: Stage) -> None:
    """On the parts and on the body."""
    sent = chord([stage.stamped(), stage.stamped()], stage.stamped())
    sent.stamp(Stamp())
    stamps = {"shop": ["Berlin"]}
    header, body = sent.apply_async().get(timeout=PATIENCE)
    assert [with_lists(found) for found in (*header, body)] == [stamps] * 3


class Stamp(StampingVisitor):  # type: ignore[misc]
    """Stamps each task."""

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """With the name of a shop."""
        return {"shop": ["Berlin"]}


def with_lists(stamps: dict[str, Any]) -> dict[str, Any]:
    """Stamps as Celery may also write them."""
    return {name: [value] if isinstance(value, str) else value for name, value in stamps.items()}


def test_the_caller_knows_the_header(stage: Stage) -> None:
    """The parent of a body is its header, with the results of the parts."""
    body = chord([stage.number(1), stage.number(2)])(stage.total())
    assert body.get(timeout=PATIENCE) == 3
    assert body.parent.get(timeout=PATIENCE) == [1, 2]
