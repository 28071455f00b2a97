"""What a group knows of its members: one query, however many they are and however deep; counted at the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from celery.backends.cache import CacheBackend
from celery.exceptions import TimeoutError
from celery.result import GroupResult
from sqlalchemy.exc import OperationalError

from celery_sql_results import DatabaseBackend
from servers.pool import on
from support import Backends, Statements
from waiting.conftest import PATIENCE

databases = on("postgresql", "mariadb", "sqlite")
QUESTIONS = ("ready", "successful", "failed", "waiting", "completed_count")
#: What is stored for some members, and what a group then says.
CASES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "nothing": ({}, {"ready": False, "successful": False, "failed": False, "waiting": True, "completed_count": 0}),
    "part": (
        {"a": states.SUCCESS, "c": states.SUCCESS, "d": states.STARTED},
        {"ready": False, "successful": False, "failed": False, "waiting": True, "completed_count": 1},
    ),
    "failure": (
        {"a": states.SUCCESS, "b": states.SUCCESS, "c": states.FAILURE, "d": states.SUCCESS},
        {"ready": True, "successful": False, "failed": True, "waiting": False, "completed_count": 2},
    ),
    "success": (
        dict.fromkeys("abcd", states.SUCCESS),
        {"ready": True, "successful": True, "failed": False, "waiting": False, "completed_count": 3},
    ),
}


@pytest.fixture
def backend(statements: Statements, backends: Backends) -> DatabaseBackend:
    """A backend whose connection is open and whose tables are there."""
    backend = backends()
    backend.states_of(["warm"])
    return backend


def nested(backend: DatabaseBackend) -> GroupResult:
    """A group of three: one task, a group of two, one task."""
    a, b, c, d = (backend.app.AsyncResult(task_id) for task_id in "abcd")
    inner = backend.app.GroupResult("inner", [b, c])
    return backend.app.GroupResult("outer", [a, inner, d])


def store(backend: DatabaseBackend, stored: dict[str, str]) -> None:
    """Store a state for each of some tasks."""
    for task_id, state in stored.items():
        backend.store_result(task_id, ValueError() if state == states.FAILURE else 1, state)


def selects(statements: list[str]) -> int:
    """How many queries there are among statements; waiting asks SQLite for more, which is none."""
    return sum(" FROM " in statement.replace("\n", " ") for statement in statements)


@pytest.mark.parametrize("case", CASES)
@databases
def test_each_question_is_one_query(statements: Statements, backend: DatabaseBackend, case: str) -> None:
    """And carries no results over the network."""
    stored, expected = CASES[case]
    store(backend, stored)
    answers = {}
    with statements() as seen:
        for question in QUESTIONS:
            answers[question] = getattr(nested(backend), question)()

    assert answers == expected
    assert [statement.split(None, 1)[0] for statement in seen] == ["SELECT"] * len(QUESTIONS)
    assert not any(".result" in statement for statement in seen)


@on("portable")
def test_the_answers_are_the_same_anywhere(backend: DatabaseBackend) -> None:
    """Also on a database that nobody knows."""
    store(backend, CASES["failure"][0])

    assert {question: getattr(nested(backend), question)() for question in QUESTIONS} == CASES["failure"][1]


@databases
def test_what_is_known_is_not_asked_for(statements: Statements, backend: DatabaseBackend) -> None:
    """Nothing at all once the results are there."""
    store(backend, CASES["success"][0])
    group = nested(backend)
    group.get(timeout=0)
    with statements() as seen:
        answers = [group.ready(), group.completed_count()]

    assert (answers, seen) == ([True, 3], [])


@databases
def test_whether_a_member_failed_is_one_query(statements: Statements, backend: DatabaseBackend) -> None:
    """What it raised is one more. All that are known are not asked for."""
    store(backend, CASES["part"][0])
    unfinished, known = nested(backend), backend.app.GroupResult("g", [backend.app.AsyncResult("a")])
    known.get(timeout=0)
    with statements() as before:
        unfinished.maybe_throw()
        known.maybe_throw()
    store(backend, {"b": states.FAILURE, "d": states.FAILURE})
    with statements() as after, pytest.raises(ValueError):  # noqa: PT011 - what was stored says nothing more
        unfinished.maybe_throw()
    unfinished.maybe_throw(propagate=False)

    assert (selects(before), selects(after)) == (1, 2)


@databases
def test_all_that_came_before_a_result_is_one_query(statements: Statements, backend: DatabaseBackend) -> None:
    """The tasks of a chain and of the header of a chord."""
    store(backend, {**CASES["part"][0], "e": states.SUCCESS, "f": states.SUCCESS})
    parent = backend.app.AsyncResult("e", parent=nested(backend))
    result = backend.app.AsyncResult("f", parent=parent)
    with statements() as seen:
        value = result.get(timeout=0)
    store(backend, {"d": states.FAILURE})

    assert (value, selects(seen)) == (1, 2)
    with pytest.raises(ValueError):  # noqa: PT011 - what was stored says nothing more
        result.get(timeout=0)


@databases
def test_what_has_succeeded_is_not_looked_at_again(statements: Statements, backend: DatabaseBackend) -> None:
    """However often a wait looks at what came before."""
    store(backend, {"a": states.SUCCESS})
    result = backend.app.AsyncResult("z", parent=backend.app.AsyncResult("a"))
    with statements() as seen, pytest.raises(TimeoutError):
        result.get(timeout=0.2, interval=0.01)

    assert len([statement for statement in seen if "task_id, celery_taskmeta.status \nFROM" in statement]) == 1


@on("sqlite")
def test_what_came_before_may_be_stored_elsewhere(backend: DatabaseBackend) -> None:
    """A task may have a backend of its own."""
    elsewhere = CacheBackend(app=backend.app, url="memory://")
    elsewhere.store_result("elsewhere", ValueError("poor"), states.FAILURE)
    parent, member = (backend.app.AsyncResult("elsewhere", backend=elsewhere) for _ in range(2))

    with pytest.raises(ValueError, match="poor"):
        backend.app.AsyncResult("here", parent=parent).get(timeout=0)
    assert backend.app.GroupResult("g", [member]).failed()


@on("sqlite")
def test_what_came_before_and_can_never_be_read_ends_the_wait(backends: Backends, tmp_path: Path) -> None:
    """An error that passes would not."""
    elsewhere = backends(f"sqlite:///{tmp_path}/elsewhere.db")
    elsewhere.store_result("parent", 1, states.SUCCESS)
    with elsewhere.ResultSession() as session:
        session.execute(sa.text("ALTER TABLE celery_taskmeta RENAME TO gone"))
        session.commit()
    app = backends().app
    result = app.AsyncResult("z", parent=app.AsyncResult("parent", backend=elsewhere))

    with pytest.raises(OperationalError, match="no such table"):
        result.get(timeout=PATIENCE)


@databases
def test_each_member_is_called_back(backend: DatabaseBackend) -> None:
    """With what there is of it, as Celery does."""
    store(backend, CASES["part"][0])
    called: dict[str, Any] = {}
    nested(backend).maybe_throw(callback=called.__setitem__)

    assert called == {"a": 1, "b": None, "c": 1, "d": 1}


@on("sqlite")
def test_an_empty_group_is_ready(backend: DatabaseBackend) -> None:
    """As Celery says."""
    group = backend.app.GroupResult("g", [])

    assert (group.ready(), group.completed_count(), group.failed()) == (True, 0, False)
