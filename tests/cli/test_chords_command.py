"""`chords`: those whose body was not sent, and what they wait for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import Signature, chord, states

from acceptance.conftest import MakeApp, make
from acceptance.worker import Worker, running, settings_for
from celery_sql_results import DatabaseBackend
from chords.actors import LEASE, part
from cli.looking import HOSTILE, is_tame, look, succeed, through
from faults.load import until
from servers import Database
from servers.pool import on
from support import Backends

__all__ = ["make", "through"]  # fixtures

BODY = '{"task": "shop.total", "args": [], "kwargs": {}, "options": {"task_id": "body"}}'


def begin(backend: DatabaseBackend, group_id: str, *members: str, body: str = BODY) -> None:
    """Begin a chord, as a caller does before he sends the header."""
    rows = backend.database.rows.chords
    assert rows is not None
    ids = "[" + ", ".join(f'"{member}"' for member in members) + "]"
    known: dict[str, Any] = {"size": len(members), "header": None, "content_type": "application/json"}
    rows.open({"group_id": group_id, "body": body.encode(), "members": ids.encode(), **known})


def give_back(backend: DatabaseBackend, group_id: str, task_id: str, position: int) -> None:
    """Let a part return."""
    rows = backend.database.rows.chords
    assert rows is not None
    rows.put_part(part(group_id=group_id, task_id=task_id, position=position))


def some_chords(backend: DatabaseBackend) -> None:
    """One that waits for a member at work, one for members that ended elsewhere or are unknown, and one complete."""
    begin(backend, "at-work", "a", "b")
    give_back(backend, "at-work", "a", 0)
    backend.store_result("b", None, states.STARTED)
    begin(backend, "in-vain", "c", "d", "e")
    give_back(backend, "in-vain", "c", 0)
    succeed(backend, "d")
    begin(backend, "complete", "f")
    give_back(backend, "complete", "f", 0)


def test_chords_and_how_far_they_are(database: Database, backend: DatabaseBackend, through: str) -> None:
    some_chords(backend)
    found = look(database, "chords", "--json", through=through)
    told = [(row["group_id"], row["state"], row["returned"], row["size"], row["body"]) for row in found.rows]

    assert told == [
        ("at-work", "waiting", 1, 2, "shop.total"),
        ("in-vain", "waiting", 1, 3, "shop.total"),
        ("complete", "complete", 1, 1, "shop.total"),
    ]
    assert (found.code, found.err) == (0, "")


def test_those_that_are_stuck(database: Database, backend: DatabaseBackend) -> None:
    some_chords(backend)
    found = look(database, "chords", "--stuck", "--older-than=0s", "--json")

    assert [(row["group_id"], row["why"]) for row in found.rows] == [
        ("in-vain", "waits for 1 ended, but not counted in, 1 of which nothing is stored"),
        ("complete", "complete, but nobody sends the body"),
    ]
    assert look(database, "chords", "--stuck").out.splitlines()[1:] == []  # they are young


def test_one_chord(database: Database, backend: DatabaseBackend, through: str) -> None:
    """Those of its members that are missing come first."""
    some_chords(backend)
    [found] = look(database, "chords", "in-v", "--json", through=through).rows
    members = [(each["task_id"], each["position"], each["part"], each["state"]) for each in found["members"]]

    assert (found["group_id"], found["state"]) == ("in-vain", "waiting")
    assert members == [
        ("d", 1, "missing", "SUCCESS"),
        ("e", 2, "missing", "UNKNOWN"),
        ("c", 0, "returned", "SUCCESS"),
    ]


@on("sqlite")
def test_tables(database: Database, backend: DatabaseBackend) -> None:
    some_chords(backend)
    found = look(database, "chords", "in-vain", "--limit=2")

    assert [line.split() for line in found.out.splitlines()[-3:]] == [
        ["position", "state", "part", "task", "worker", "id"],
        ["1", "SUCCESS", "missing", "shop.pay", "celery@shop-1", "d"],
        ["2", "UNKNOWN", "missing", "e"],
    ]
    assert found.err == "1 members more: --limit shows them\n"
    assert look(database, "chords", "--csv").out.startswith("created,state,returned,size,body,group_id\n")


@on("postgresql", "mariadb", "sqlite")
def test_a_claim_and_its_end(database: Database, backend: DatabaseBackend) -> None:
    """Nobody is stuck whom a process has; once the body was sent, nothing is open."""
    some_chords(backend)
    rows = backend.database.rows.chords
    assert rows is not None
    rows.claim("complete", "somebody", LEASE)
    claimed = look(database, "chords", "complete", "--json").rows[0]
    stuck = look(database, "chords", "--stuck", "--older-than=0s", "--json").rows
    rows.close("complete", "somebody")
    closed = look(database, "chords", "complete", "--json").rows[0]

    assert (claimed["state"], claimed["claimed_by"]) == ("claimed", "somebody")
    assert [row["group_id"] for row in stuck] == ["in-vain"]
    assert (closed["state"], closed["body"], closed["members"]) == ("sent", None, [])
    assert [row["group_id"] for row in look(database, "chords", "--json").rows] == ["at-work", "in-vain"]


@on("postgresql", "mariadb", "sqlite")
def test_a_header_that_was_not_sent_to_its_end(database: Database, backend: DatabaseBackend) -> None:
    begin(backend, "g", "a")
    database.execute("UPDATE celery_taskmeta_chords SET size = NULL")
    [found] = look(database, "chords", "--stuck", "--older-than=0s", "--json").rows

    assert (found["state"], found["why"]) == ("unsized", "the header was not sent to its end")


@on("postgresql", "sqlite")
def test_a_part_that_was_added(database: Database, backend: DatabaseBackend) -> None:
    begin(backend, "g", "a")
    give_back(backend, "g", "a", 0)
    rows = backend.database.rows.chords
    assert rows is not None
    rows.add("g", "more")
    [found] = look(database, "chords", "g", "--json").rows

    assert (found["state"], found["returned"], found["size"]) == ("waiting", 1, 2)
    assert [(each["task_id"], each["part"]) for each in found["members"]] == [("more", "missing"), ("a", "returned")]


@on("sqlite")
@pytest.mark.parametrize("members", ["NULL", "'x'", "'[1, null]'", "x'8004'", "'[[[[[]]]]]'"])
def test_members_that_cannot_be_read(database: Database, backend: DatabaseBackend, members: str) -> None:
    begin(backend, "g", "a")
    database.execute(f"UPDATE celery_taskmeta_chords SET members = {members}, body = 'no JSON'")
    [found] = look(database, "chords", "--stuck", "--older-than=0s", "--json").rows
    [one] = look(database, "chords", "g", "--json").rows

    assert (found["body"], found["why"]) == (None, "the ids of its members are not known")
    assert [(each["task_id"], each["state"]) for each in one["members"]] == [(None, "UNKNOWN")]


@on("postgresql", "mariadb", "sqlite")
def test_ids_that_nobody_knows(database: Database, backend: DatabaseBackend) -> None:
    some_chords(backend)
    begin(backend, "in-addition", "x")
    unknown, several = look(database, "chords", "nobody"), look(database, "chords", "in-")

    assert (unknown.code, several.code) == (4, 2)
    assert "no chord has the id 'nobody'" in unknown.err
    assert "several chords" in several.err


@on("postgresql", "sqlite")
def test_signed_bodies(database: Database, backends: Backends) -> None:
    """The signature stands behind the name of the task, which is told whoever has signed it."""
    backend = backends(database_chord_secrets=["one secret"])
    first, second, body = (Signature("pay", (number,), app=backend.app) for number in range(3))
    chord([first, second], app=backend.app)(body)
    [found] = look(database, "chords", "--json").rows

    assert (found["body"], found["size"], found["state"]) == ("pay", 2, "waiting")


def test_hostile_words(database: Database, backend: DatabaseBackend) -> None:
    """Of ids, of the body, and of states."""
    escaped = HOSTILE.replace("\x1b", "\\u001b").replace("\x07", "\\u0007").replace("\r\n", "\\r\\n")
    begin(backend, HOSTILE, escaped, body=BODY.replace("shop.total", escaped))
    backend.store_result(HOSTILE, None, HOSTILE)
    for words in (("chords",), ("chords", "--csv"), ("chords", "--json"), ("chords", HOSTILE)):
        found = look(database, *words)
        assert found.code == 0
        assert is_tame(found.out)
        assert "[31mred" in found.out


@on("postgresql", "mariadb", "sqlite")
def test_while_a_worker_is_at_it(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """A chord of a real worker: it waits for the member that still runs, is not stuck, and then it is over."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    with running(Worker(tmp_path, settings, "--pool=threads", "--concurrency=2")):
        app = make(settings)
        add, nap = app.tasks["add"], app.tasks["nap"]
        body = chord([add.s(1, 1), nap.s(8)])(app.tasks["spawn"].si(1))
        until(lambda: look(database, "chords", "--json").rows[0]["returned"] == 1, "the first part")
        until(lambda: app.AsyncResult(body.parent.results[1].id).state == states.STARTED, "the second")
        [found] = look(database, "chords", body.parent.id, "--json").rows
        stuck = look(database, "chords", "--stuck", "--older-than=0s", "--json").rows
        body.get(timeout=60)
    told = [(each["name"], each["state"], each["worker"], each["part"]) for each in found["members"]]

    assert told == [("nap", "STARTED", "shop@localhost", "missing"), (None, "SUCCESS", None, "returned")]
    assert (found["body"], found["state"], stuck) == ("spawn", "waiting", [])
    assert look(database, "chords", "--json").rows == []
