"""`tree`: the workflow that a task belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group, states

from acceptance.conftest import MakeApp, make
from acceptance.worker import PATIENCE, Worker, running, settings_for
from celery_sql_results import DatabaseBackend
from celery_sql_results.payload import sent
from cli.looking import HOSTILE, fail, is_tame, look, succeed, through
from servers import Database
from servers.pool import on

__all__ = ["make", "through"]  # fixtures


def flat(node: dict[str, Any]) -> Any:
    """A node as its state and id, or its kind, and what is below it."""
    nodes = [flat(each) for each in node["nodes"]]
    own = (node["state"], node["task_id"]) if node["kind"] == "task" else node["kind"]
    return (own, nodes) if nodes else own


def children(database: Database, task_id: str, value: object) -> None:
    """Let a row say what its task has sent."""
    payload = json.dumps(value).encode().hex()
    literal = f"'\\x{payload}'" if database.kind in ("postgresql", "portable") else f"x'{payload}'"
    database.execute(f"UPDATE celery_taskmeta SET children = {literal} WHERE task_id = '{task_id}'")


def test_a_workflow(database: Database, backend: DatabaseBackend, through: str) -> None:
    """By the ids of parents; what was sent and has no row is PENDING; the asked one is told."""
    succeed(backend, "root")
    succeed(backend, "a", root_id="root", parent_id="root", group="g")
    fail(backend, "b", ValueError("no"), root_id="root", parent_id="root", group="g")
    backend.store_result("c", None, states.STARTED, request=None)
    succeed(backend, "other")
    children(database, "root", [[["g", None], [[["a", None], None], [["b", None], None], [["d", None], None]]]])
    children(database, "a", [[["c", None], None]])
    [found] = look(database, "tree", "b", "--json", through=through).rows

    below = [(("SUCCESS", "a"), [("STARTED", "c")]), ("FAILURE", "b"), ("PENDING", "d")]
    assert flat(found) == (("SUCCESS", "root"), [("group", below)])
    assert found["is_whole"]
    assert found["nodes"][0]["nodes"][1]["is_asked"]
    assert not found["is_asked"]


@on("sqlite")
def test_as_text(database: Database, backend: DatabaseBackend) -> None:
    succeed(backend, "root")
    succeed(backend, "child", root_id="root", parent_id="root")
    fail(backend, "grandchild", ValueError("no"), root_id="root", parent_id="child")
    succeed(backend, "last", root_id="root", parent_id="root")
    database.execute("UPDATE celery_taskmeta SET date_started = date_done")
    found = look(database, "tree", "grand")

    assert [line.rstrip() for line in found.out.splitlines()] == [
        "SUCCESS  shop.pay  0 ms  root",
        "├─ SUCCESS  shop.pay  0 ms  child",
        "│  └─ FAILURE  shop.pay  0 ms  grandchild  ValueError: no  <──",
        "└─ SUCCESS  shop.pay  0 ms  last",
    ]
    assert (found.code, found.err) == (0, "")


def test_old_rows(database: Database, backend: DatabaseBackend) -> None:
    """Of an older Celery, or of tables without our columns: only the children tell what was sent."""
    for id_ in ("a", "b", "c"):
        backend.store_result(id_, 1, states.SUCCESS)
    children(database, "a", [[["b", None], None]])
    children(database, "b", [[["c", None], None], [["d", None], None]])
    [found] = look(database, "tree", "a", "--json").rows

    assert flat(found) == (("SUCCESS", "a"), [(("SUCCESS", "b"), [("SUCCESS", "c"), ("PENDING", "d")])])


@on("postgresql", "mariadb", "sqlite")
def test_a_group_that_a_client_has_sent(database: Database, backend: DatabaseBackend) -> None:
    """Its members have no root in common, but belong together with all that they have sent."""
    succeed(backend, "a", group="g")
    succeed(backend, "b", group="g")
    succeed(backend, "c", root_id="b", parent_id="b")
    [found] = look(database, "tree", "a", "--json").rows

    assert flat(found) == ("group", [("SUCCESS", "a"), (("SUCCESS", "b"), [("SUCCESS", "c")])])


@on("postgresql", "mariadb", "sqlite")
def test_those_above_one_another(database: Database, backend: DatabaseBackend) -> None:
    """Whatever rows say, each task stands once, and there is an end."""
    for id_, parent, root in (("a", "c", "x"), ("b", "a", "x"), ("c", "b", "x"), ("d", "d", "x"), ("e", "nobody", "x")):
        succeed(backend, id_, parent_id=parent, root_id=root)
    children(database, "b", [[["a", None], None], [["b", None], None]])
    [found] = look(database, "tree", "a", "--json").rows
    flattened = json.dumps(flat(found))

    assert [flattened.count(f'"{id_}"') for id_ in "abcde"] == [1, 1, 1, 1, 1]
    assert found["kind"] == "client"


@on("sqlite")
def test_a_long_chain(database: Database, backend: DatabaseBackend) -> None:
    """What is deeper than a tree may be is told, and shown beside it."""
    for number in range(250):
        succeed(backend, f"t{number}", parent_id=f"t{number - 1}" if number else None, root_id="t0")
    text, found = look(database, "tree", "t0"), look(database, "tree", "t0", "--json")

    assert len(text.out.splitlines()) == 251  # one for the client
    assert "too deep to be shown in one piece" in text.err
    assert not found.rows[0]["is_whole"]


@on("postgresql", "sqlite")
@pytest.mark.parametrize("payload", ["{", "[[[[[", "[1, null, {}]", '[[["a"]]]', "\x80\x04", '{"a": []}'])
def test_children_that_cannot_be_read(database: Database, backend: DatabaseBackend, payload: str) -> None:
    succeed(backend, "a")
    literal = f"'\\x{payload.encode().hex()}'" if database.kind == "postgresql" else f"x'{payload.encode().hex()}'"
    database.execute(f"UPDATE celery_taskmeta SET children = {literal}")

    assert flat(look(database, "tree", "a", "--json").rows[0]) == ("SUCCESS", "a")


def test_what_is_deep_in_one_another() -> None:
    """Each result is that of a task whose parent is another: so deep that no call may lead into the next."""
    deep: Any = None
    for number in range(5_000):
        deep = [[f"t{number}", deep], None]

    assert [each.task_id for each in sent([deep])][:2] == ["t0", "t1"]
    assert len(list(sent([deep]))) == 5_000
    assert len(list(sent([[["g", None], [[["a", None], None]] * 50_000]]))) < 10_000


@on("sqlite")
def test_an_id_that_nobody_knows(database: Database, backend: DatabaseBackend) -> None:
    succeed(backend, "a")

    assert look(database, "tree", "nobody").code == 4


def test_hostile_words(database: Database, backend: DatabaseBackend) -> None:
    """Of names and ids, and of errors."""
    fail(backend, "root", ValueError(HOSTILE), task=HOSTILE)
    succeed(backend, HOSTILE, root_id="root", parent_id="root", group=HOSTILE)
    children(database, "root", [[[HOSTILE, None], [[[f"more {HOSTILE}", None], None]]]])
    text, found = look(database, "tree", "root"), look(database, "tree", "root", "--json")

    assert is_tame(text.out)
    assert is_tame(found.out)
    assert text.out.count("\\x1b[31mred") == 4


@on("postgresql", "mariadb", "sqlite")
def test_what_real_workers_leave_behind(tmp_path: Path, make: MakeApp, database: Database) -> None:
    """A chain that ends in a chord, and a group of which one member is replaced."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    with running(Worker(tmp_path, settings, "--pool=threads", "--concurrency=4")):
        app = make(settings)
        add, total, spawn = (app.tasks[name] for name in ("add", "total", "spawn"))
        body = chain(add.s(1, 1), chord([add.s(2), add.s(3)], total.s())).apply_async()
        assert body.get(timeout=PATIENCE) == 9
        both = group(spawn.s(1), add.s(1, 1)).apply_async()
        [child] = both.get(timeout=PATIENCE)[0]
        app.AsyncResult(child).get(timeout=PATIENCE)
    [of_chain] = look(database, "tree", body.id, "--json").rows
    [of_group] = look(database, "tree", child, "--json").rows
    names = [node["name"] for node in (of_chain, *of_chain["nodes"]) if node["kind"] == "task"]
    [header] = [node for node in of_chain["nodes"] if node["kind"] == "chord"]

    assert names[0] == "add"
    assert {node["name"] for node in header["nodes"]} == {"add"}
    assert json.dumps(flat(of_chain)).count(body.id) == 1
    assert of_group["kind"] == "group"
    assert [node["name"] for node in of_group["nodes"]] == ["spawn", "add"]
    assert of_group["nodes"][0]["nodes"][0]["task_id"] == child
