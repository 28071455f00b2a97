"""An id may be whatever Celery accepts as one, at every door; one that no column can hold harms nobody."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from enum import Enum
from typing import Any

import celery.result
import pytest
from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.serialization import register, unregister

from celery_sql_results import DatabaseBackend, TaskIdInvalid
from servers.pool import on
from support import SERIALIZERS, Backends, parent, request

PATIENCE = 30.0


class Key(str, Enum):
    """An id that somebody has listed."""

    DAILY = "daily-report"


ID = uuid.UUID("0b9c3f5e-7d1a-4a53-9e0e-2f6f5a0c8d11")
IDS: list[tuple[Any, str]] = [(ID, str(ID)), (Key.DAILY, "daily-report"), (7, "7"), (b"bytes", "bytes")]
each_kind = pytest.mark.parametrize(("given", "text"), IDS, ids=[text for _, text in IDS])

#: What no row can have: NUL, half a character, more than fits, and bytes that are no text.
IMPOSSIBLE: list[Any] = ["a\x00b", "\ud83d", "t" * 156, b"\xff", uuid.UUID(int=1).hex * 5]
each_impossible = pytest.mark.parametrize("impossible", IMPOSSIBLE, ids=["NUL", "surrogate", "long", "bytes", "hex"])


@each_kind
def test_stored_and_found(backend: DatabaseBackend, given: Any, text: str) -> None:
    """By the id as it was given, by its text, by Celery's results and by ours."""
    backend.store_result(given, 1, states.SUCCESS)
    app, celerys = backend.app, celery.result.AsyncResult(given, app=backend.app)
    found = [app.AsyncResult(given).get(timeout=0), celerys.get(timeout=0), app.AsyncResult(text).get(timeout=0)]

    assert found == [1, 1, 1]
    assert (app.AsyncResult(given).id, celerys.state, backend.get_task_meta(given)["task_id"]) == (
        text,
        "SUCCESS",
        text,
    )
    assert [task_id for task_id, _ in backend.get_many([given], timeout=0)] == [text]
    assert (backend.wait_for(given, timeout=0)["result"], backend.states_of([given])) == (1, {given: "SUCCESS"})


@each_kind
def test_asked_and_forgotten(backend: DatabaseBackend, given: Any, text: str) -> None:
    """Whether it is there, and that it goes."""
    backend.store_result(text, 1, states.SUCCESS)
    before = backend.task_result_exists(given)
    backend.forget(given)

    assert (before, backend.task_result_exists(text)) == (True, False)


def test_published(backend: DatabaseBackend) -> None:
    """`apply_async(task_id=uuid4())`: the worker gets a UUID too, in its request."""
    result = backend.app.send_task("shop.pay", task_id=ID)
    backend.mark_as_done(ID, 1, request=request(ID, group=uuid.UUID(int=2), parent_id=ID, root_id=ID))  # type: ignore[arg-type]

    assert (result.id, result.get(timeout=0)) == (str(ID), 1)


def test_parents_and_groups_are_text(backends: Backends) -> None:
    """As all other columns of ids."""
    backend = backends(result_extended=True)
    backend.store_result("t", 1, states.SUCCESS, request=request("t", group=ID, parent_id=ID, root_id=ID))
    meta = backend.get_task_meta("t")

    assert [meta[name] for name in ("group_id", "parent_id", "root_id")] == [str(ID)] * 3


def test_awaited(backend: DatabaseBackend) -> None:
    """A result that comes while somebody waits, by results of either class and as members of groups."""
    ids, app = [uuid.UUID(int=number) for number in range(1, 6)], backend.app
    celerys = [celery.result.AsyncResult(each, app=app) for each in ids]
    nested = app.GroupResult("inner", [celerys[2]])
    awaited = [celerys[0], app.AsyncResult(ids[1]), app.GroupResult("g", [nested, *celerys[3:]])]
    before = [awaited[0].ready(), awaited[2].ready()]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda each=each: found.append(each.get(timeout=PATIENCE))) for each in awaited]
    for thread in threads:
        thread.start()
    for number, each in enumerate(ids):
        backend.store_result(each, number, states.SUCCESS)
    for thread in threads:
        thread.join()

    assert sorted(found, key=repr) == [0, 1, [[2], 3, 4]]
    assert (before, app.GroupResult("g", celerys).completed_count()) == ([False, False], 5)


@each_kind
def test_groups(backend: DatabaseBackend, given: Any, text: str) -> None:
    """Saved, restored, deleted."""
    app = backend.app
    app.GroupResult(given, [celery.result.AsyncResult(given, app=app)]).save()
    found = app.GroupResult.restore(text)
    app.GroupResult(given, []).delete()

    assert (found.id, found.results[0].id, app.GroupResult.restore(given)) == (text, text, None)


@each_impossible
def test_impossible_ids_are_unknown(backend: DatabaseBackend, impossible: Any) -> None:
    """Nothing of the database's is raised, and nothing is waited for that could come."""
    result = backend.app.AsyncResult(impossible)
    result.forget()
    with pytest.raises(CeleryTimeoutError):
        result.get(timeout=0.01)
    with pytest.raises(CeleryTimeoutError):
        backend.app.GroupResult("g", [celery.result.AsyncResult(impossible, app=backend.app)]).get(timeout=0.01)

    assert (result.state, result.ready(), backend.task_result_exists(impossible)) == ("PENDING", False, False)
    assert (backend.restore_group(impossible), backend.delete_group(impossible)) == (None, None)
    assert (backend.states_of([impossible]), backend.app.GroupResult("g", [result]).ready()) == ({}, False)


@each_impossible
def test_impossible_ids_are_refused_before_anything_is_stored(backend: DatabaseBackend, impossible: Any) -> None:
    """Also as a task is sent, and as a group is saved."""
    app = backend.app
    for store in (
        lambda: backend.store_result(impossible, 1, states.SUCCESS),
        lambda: backend.mark_as_failure(impossible, ValueError("no")),
        lambda: app.send_task("shop.pay", task_id=impossible),
        lambda: app.GroupResult(impossible, []).save(),
        lambda: backend.add_to_chord(impossible, app.AsyncResult("t")),
        lambda: backend.add_to_chord("g", app.AsyncResult(impossible)),
    ):
        with pytest.raises(TaskIdInvalid, match=r"^the (task|group) id "):
            store()


def test_a_group_without_an_id_is_not_saved(backend: DatabaseBackend) -> None:
    """`GroupResult` may have none."""
    with pytest.raises(TaskIdInvalid, match=r"^the group id is None: give it one$"):
        backend.app.GroupResult(None, []).save()


def test_an_impossible_id_disturbs_no_other_wait(backend: DatabaseBackend) -> None:
    """All waits of a process are one query."""
    found: list[object] = []
    other = threading.Thread(target=lambda: found.append(backend.app.AsyncResult("good").get(timeout=PATIENCE)))
    other.start()
    with pytest.raises(CeleryTimeoutError):
        backend.app.AsyncResult("bad\x00").get(timeout=0.3)
    backend.store_result("good", "fine", states.SUCCESS)
    other.join()

    assert found == ["fine"]


@given(task_id=st.text(st.characters(codec=None, categories=None), max_size=200) | st.binary(max_size=9) | st.uuids())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_id(backend: DatabaseBackend, task_id: Any) -> None:
    """It is stored and found, or refused and unknown."""
    try:
        backend.store_result(task_id, 1, states.SUCCESS)
    except TaskIdInvalid:
        stored = False
    else:
        stored = True
    found = backend.get_task_meta(task_id)

    assert (found["status"], backend.task_result_exists(task_id)) == (
        ("SUCCESS", True) if stored else ("PENDING", False)
    )


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_children(backends: Backends, serializer: str) -> None:
    """Most serializers cannot write a UUID, and what a task has sent must not lose its outcome."""
    backend = backends(result_serializer=serializer, accept_content=[serializer])
    app = backend.app
    sent = [celery.result.AsyncResult(ID, app=app), app.GroupResult(ID, [celery.result.AsyncResult(ID, app=app)])]
    backend.store_result("t", 1, states.SUCCESS, request=parent(*sent))
    found = app.AsyncResult("t")

    assert (found.get(timeout=0), [each.id for each in found.children]) == (1, [str(ID)] * 2)


def test_children_that_are_none(backend: DatabaseBackend) -> None:
    """Whatever a task has put there, its outcome is stored."""
    backend.store_result("t", 1, states.SUCCESS, request=parent(backend.app.GroupResult(None, [])))

    assert (backend.get_result("t"), backend.get_children("t")) == (1, None)


def revived(value: Any) -> Any:
    """Values with a UUID in place of each text that is one."""
    if isinstance(value, list):
        return [revived(each) for each in value]
    try:
        return uuid.UUID(value) if isinstance(value, str) else value
    except ValueError:
        return value


@pytest.fixture
def reviving() -> Iterator[str]:
    """A serializer that reads UUIDs as UUIDs, as many apps have one."""
    register("reviving", json.dumps, lambda text: revived(json.loads(text)), "application/x-reviving", "utf-8")
    yield "reviving"
    unregister("reviving")


def test_children_that_are_read_as_uuids(backends: Backends, reviving: str) -> None:
    """A task that sent others, and a saved group, are read; their ids are text."""
    backend = backends(result_serializer=reviving, accept_content=[reviving])
    app, child, member = backend.app, uuid.uuid4(), uuid.uuid4()
    children = [app.AsyncResult(child, parent=app.AsyncResult(ID)), app.GroupResult(ID, [app.AsyncResult(member)])]
    backend.store_result("t", str(child), states.SUCCESS, request=parent(*children))
    children[1].save()
    for each in (child, member):
        backend.store_result(each, 1, states.SUCCESS)
    result = celery.result.AsyncResult("t", app=app)

    assert (result.state, result.get(timeout=0)) == ("SUCCESS", child)
    assert [each.id for each in result.children] == [str(child), str(ID)]
    assert (result.children[0].parent.id, [each.get(timeout=0) for each in result.children]) == (str(ID), [1, [1]])
    assert app.GroupResult.restore(ID).get(timeout=0) == [1]


@on("mariadb")
def test_ids_that_differ_in_trailing_blanks_are_one(backend: DatabaseBackend) -> None:
    """Whichever of them is asked for, by every way."""
    backend.store_result("blank ", 1, states.SUCCESS)
    asked = ["blank", "blank ", "blank  "]
    results = [backend.app.AsyncResult(id_) for id_ in asked]

    assert [result.state for result in results] == [states.SUCCESS] * 3
    assert [backend.app.AsyncResult(id_).get(timeout=1) for id_ in asked] == [1, 1, 1]
    assert backend.app.ResultSet(results).ready()
    assert backend.app.ResultSet([backend.app.AsyncResult(id_) for id_ in asked]).get(timeout=1) == [1, 1, 1]
    assert sorted(id_ for id_, _ in backend.get_many(asked, timeout=1)) == asked
