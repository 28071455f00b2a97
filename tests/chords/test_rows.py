"""The rows of chords: a part counts once, one process is elected, and nothing is left behind."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from celery.utils.functional import regen
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from celery_sql_results import DatabaseBackend
from celery_sql_results.rows.chords import ChordRows
from chords.actors import claimed, count_in, open_chord, part, returned
from concurrency.nursery import Nursery, errors
from servers import Database
from servers.pool import on
from support import Backends

LEASE, PAST = timedelta(hours=1), timedelta(hours=-1)
PROCESSES, RETURNING, PARTS = 20, 8, 200


@pytest.fixture
def rows(backend: DatabaseBackend) -> ChordRows:
    """The rows, with a chord of two parts."""
    assert backend.database.rows.chords is not None
    open_chord(backend.database.rows.chords, "g", b"{}")
    backend.database.rows.chords.set_size("g", 2)
    return backend.database.rows.chords


def progress(rows: ChordRows, **values: Any) -> tuple[int, bool]:
    """Count a part in: how many there are then, and whether these are all."""
    chord = count_in(rows, part(**values))
    assert chord is not None
    return len(rows.results("g")), chord.is_complete


def results(rows: ChordRows) -> list[tuple[str, bytes]]:
    """The parts that are stored, in the order of the header."""
    return [(found["task_id"], bytes(found["result"])) for found in rows.results("g")]


def test_a_part_counts_once(rows: ChordRows) -> None:
    """Also if it comes back with another result, and whatever comes between."""
    assert progress(rows, task_id="a", result=b"1") == (1, False)
    assert progress(rows, task_id="a", result=b"2") == (1, False)
    assert progress(rows, task_id="b", position=1) == (2, True)
    assert progress(rows, task_id="a") == (2, True)
    assert results(rows) == [("a", b"1"), ("b", b"1")]


@on("postgresql", "mariadb", "portable")
def test_a_part_that_is_refused_does_not_vanish(rows: ChordRows, database: Database) -> None:
    """It is not taken for one that is there."""
    database.execute("ALTER TABLE celery_taskmeta_parts ADD CHECK (task_id <> 'refused')")
    with pytest.raises(DBAPIError):
        count_in(rows, part(task_id="refused"))


def test_one_task_at_two_positions_counts_twice(rows: ChordRows) -> None:
    assert progress(rows, task_id="a", position=0) == (1, False)
    assert progress(rows, task_id="a", position=1) == (2, True)


def test_results_stand_in_the_order_of_the_header(rows: ChordRows) -> None:
    for position in (10, 2, 0, 9, 1):
        count_in(rows, part(task_id=f"task-{-position}", position=position))
    assert [task_id for task_id, _ in results(rows)] == ["task-0", "task--1", "task--2", "task--9", "task--10"]


def test_parts_may_return_before_the_size_is_known(backend: DatabaseBackend) -> None:
    rows = backend.database.rows.chords
    assert rows is not None
    open_chord(rows, "g", None)
    assert progress(rows, task_id="a") == (1, False)
    rows.set_size("g", 2)
    assert progress(rows, task_id="b") == (2, True)


def test_a_size_may_be_known_beforehand(backend: DatabaseBackend) -> None:
    """What is said when the last part is sent counts, should it differ."""
    rows = backend.database.rows.chords
    assert rows is not None
    open_chord(rows, "g", None, size=2)
    assert progress(rows, task_id="a") == (1, False)
    assert progress(rows, task_id="b") == (2, True)
    rows.set_size("g", 3)
    assert progress(rows, task_id="b") == (2, False)


@on("postgresql")
def test_a_size_that_is_known_is_not_written_again(rows: ChordRows, database: Database) -> None:
    version = partial(database.execute, "SELECT xmin::text, size FROM celery_taskmeta_chords")
    before = version()
    rows.set_size("g", 2)
    assert version() == before
    rows.set_size("g", 3)
    assert version() != before


def test_what_is_known_of_a_header_before_it_is_sent(backend: DatabaseBackend) -> None:
    """The size of a list or a generator, and the tree of nested groups."""
    app, rows = backend.app, backend.database.rows.chords
    assert rows is not None
    a, b = app.AsyncResult("a"), app.AsyncResult("b")
    known = []
    for members in ([a, b], [a, app.GroupResult("nested", [b])], regen(iter([a, b]))):
        backend.apply_chord(("g", members), app.signature("body"))
        chord = rows.look("g")
        assert chord is not None
        known.append((chord.size, chord.header is not None))
    assert known == [(2, False), (0, True), (2, False)]


def test_a_part_that_is_added_is_awaited_once(rows: ChordRows) -> None:
    for task_id in ("b", "b", "c", "c"):
        rows.add("g", task_id)
    assert progress(rows, task_id="a") == (1, False)
    assert progress(rows, task_id="b") == (2, False)
    assert progress(rows, task_id="c") == (3, False)
    assert progress(rows, task_id="d") == (4, True)


def test_a_part_without_a_chord_leaves_nothing(rows: ChordRows, database: Database) -> None:
    assert count_in(rows, part(group_id="nobody's")) is None
    assert rows.results("nobody's") == []
    rows.add("nobody's", "a")
    assert database.execute("SELECT * FROM celery_taskmeta_parts") == []


def test_late_copies_leave_nothing(rows: ChordRows) -> None:
    for task_id in "ab":
        count_in(rows, part(task_id=task_id))
    assert rows.claim("g", "me", LEASE)
    rows.close("g", "me")
    assert results(rows) == []
    late = count_in(rows, part(task_id="a"))
    assert late is not None
    assert (late.is_dispatched, late.is_complete, late.body) == (True, False, None)
    assert results(rows) == []


def meanwhile(rows: ChordRows, others: ChordRows, group_id: str) -> None:
    """Others begin a chord, and one of its parts returns, after the next look at it and before what follows."""
    done: list[str] = []

    @event.listens_for(rows.engine, "before_cursor_execute")
    def begin(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("DELETE") and not done:
            done.append(group_id)
            open_chord(others, group_id, b"{}", size=2)
            others.put_part(part(group_id=group_id, task_id="b"))


@on("postgresql", "mariadb", "sqlite")
def test_a_look_that_has_not_seen_the_chord_yet(rows: ChordRows, backends: Backends) -> None:
    """Such as one on a server that lags: no part of it is deleted."""
    others = backends().database.rows.chords
    assert others is not None
    meanwhile(rows, others, "new")
    assert count_in(rows, part(group_id="new", task_id="a")) is None
    assert [found["task_id"] for found in others.results("new")] == ["b"]  # that chord has begun after the part "a"


@on("postgresql", "mariadb", "sqlite")
def test_a_late_copy_while_its_chord_begins_anew(rows: ChordRows, backends: Backends) -> None:
    """It takes no part of the new one along."""
    others = backends().database.rows.chords
    assert others is not None
    assert rows.claim("g", "me", LEASE)
    rows.close("g", "me")
    meanwhile(rows, others, "g")
    count_in(rows, part(task_id="a"))
    assert [found["task_id"] for found in others.results("g")] == ["b"]


def test_the_claim(rows: ChordRows) -> None:
    """One at a time; its owner may prolong it; it is free when the lease is over, and never again after the end."""
    assert rows.claim("g", "me", LEASE)
    assert not rows.claim("g", "you", LEASE)
    assert rows.claim("g", "me", LEASE)
    assert rows.claim("g", "me", PAST)
    assert rows.claim("g", "you", LEASE)
    assert not rows.claim("g", "me", LEASE)
    count_in(rows, part())
    rows.close("g", "me")  # not his any more
    assert not rows.look("g").is_dispatched  # type: ignore[union-attr]
    assert results(rows) == [("a", b"1")]
    rows.close("g", "you")
    assert results(rows) == []
    assert not rows.claim("g", "you", LEASE)
    assert not rows.claim("nobody's", "me", LEASE)


def test_the_claim_while_somebody_listens_to_the_engine(rows: ChordRows) -> None:
    """Then statements go another way."""
    event.listen(rows.engine, "before_cursor_execute", lambda *_: None)
    assert rows.claim("g", "me", LEASE)
    assert not rows.claim("g", "you", LEASE)
    count_in(rows, part())
    rows.close("g", "me")
    assert results(rows) == []


def test_a_chord_that_is_opened_again_begins_anew(rows: ChordRows) -> None:
    for task_id in "ab":
        count_in(rows, part(task_id=task_id))
    rows.add("g", "c")
    rows.claim("g", "me", LEASE)
    open_chord(rows, "g", b"{}")
    rows.set_size("g", 1)
    assert results(rows) == []
    assert progress(rows, task_id="a") == (1, True)
    assert rows.claim("g", "you", LEASE)


@on("postgresql", "mariadb", "sqlite")
def test_old_parts_never_complete_a_chord_that_begins_anew(rows: ChordRows) -> None:
    """Whenever somebody looks who is late: after each statement that is committed by itself."""
    for task_id in "ab":
        count_in(rows, part(task_id=task_id))
    seen: list[bool] = []

    @event.listens_for(rows.engine, "after_cursor_execute")
    def look(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        if not statement.startswith("SELECT"):
            seen.append(rows.look("g").is_complete)  # type: ignore[union-attr]

    open_chord(rows, "g", b"{}", size=2)
    assert seen == [False, False]


def test_open_chords(rows: ChordRows) -> None:
    """In the order of their ids, with what tells whether somebody should end them; not those that have ended."""
    for group_id, body in (("f", None), ("h", b"{}")):
        open_chord(rows, group_id, body)

    def opened(after: str = "", limit: int = 9) -> list[tuple[str, bool, bool, bool, str | None]]:
        return [(*found[:1], *found[2:4], found.has_body, found.claimed_by) for found in rows.opened(after, limit)]

    assert [found[0] for found in opened()] == ["f", "g", "h"]
    assert [found[0] for found in opened("f", 1)] == ["g"]
    assert opened(limit=2) == [("f", False, True, False, None), ("g", False, True, True, None)]
    for task_id in "ab":
        count_in(rows, part(task_id=task_id))
    assert opened("f", 1) == [("g", True, True, True, None)]
    rows.claim("g", "me", LEASE)
    assert opened("f", 1) == [("g", True, False, True, "me")]
    rows.claim("g", "me", PAST)
    assert opened("f", 1) == [("g", True, True, True, "me")]
    rows.close("g", "me")
    assert [found[0] for found in opened()] == ["f", "h"]


def test_a_claim_is_broken_only_while_it_is_the_one_that_was_seen(rows: ChordRows) -> None:
    rows.claim("g", "me", LEASE)
    [seen] = rows.opened("", 1)
    assert rows.claim_from(seen, "you", LEASE)
    assert not rows.claim_from(seen, "who comes too late", LEASE)
    assert not rows.claim("g", "me", LEASE)
    rows.close("g", "you")
    assert not rows.claim_from(seen._replace(claimed_by="you"), "after the end", LEASE)


@on("postgresql", "mariadb", "sqlite")
def test_one_of_twenty_is_elected(rows: ChordRows, database: Database, nursery: Nursery) -> None:
    outcomes = nursery.at_once([(claimed, (database.url, "g")) for _ in range(PROCESSES)])
    assert errors(outcomes) == []
    assert sorted(outcome.value for outcome in outcomes) == [False] * (PROCESSES - 1) + [True]


@on("postgresql", "mariadb", "sqlite")
def test_parts_return_at_once(rows: ChordRows, database: Database, nursery: Nursery) -> None:
    """Each process has its parts, and copies of others'. At least one sees the chord complete, and one is elected."""
    rows.set_size("g", PARTS)
    outcomes = nursery.at_once([(returned, (database.url, "g", n, RETURNING, PARTS)) for n in range(RETURNING)])
    assert errors(outcomes) == []
    assert sum(outcome.value for outcome in outcomes) == 1
    assert results(rows) == []
    assert rows.look("g").is_dispatched  # type: ignore[union-attr]
