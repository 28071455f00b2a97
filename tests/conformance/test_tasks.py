"""Celery's contract of a result backend, for tasks."""

from __future__ import annotations

from uuid import UUID

import pytest
from celery import states
from celery.exceptions import Retry, TaskRevokedError, TimeoutError
from celery.result import AsyncResult

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from support import Backends, request

VALUES = [None, True, 0, 42, 2.5, "", "naïve 東京 🎉", [], {}, {"a": [1, {"b": None}]}]
META = {"status", "result", "traceback", "children", "task_id", "date_done"}
NOTHING = {"status": "PENDING", "result": None, "traceback": None, "children": None, "date_done": None}


def test_values_come_back(backend: DatabaseBackend) -> None:
    """The same, and of the same type; `store_result` returns them too."""
    stored = [backend.store_result(f"t-{number}", value, states.SUCCESS) for number, value in enumerate(VALUES)]
    found = [backend.get_result(f"t-{number}") for number in range(len(VALUES))]

    assert [stored, found] == [VALUES, VALUES]
    assert [type(value) for value in found] == [type(value) for value in VALUES]


def test_a_task_without_a_row_is_pending(backend: DatabaseBackend) -> None:
    """It may be unknown or not have begun: Celery does not tell."""
    assert backend.get_task_meta("t") == {"task_id": "t", **NOTHING}
    assert (backend.get_state("t"), backend.get_result("t")) == ("PENDING", None)


def test_meta_has_celerys_keys(backend: DatabaseBackend) -> None:
    """No more while `result_extended` is off: what is recorded is read by whoever asks for it."""
    backend.store_result("t", 1, states.SUCCESS, request=request())

    assert set(backend.get_task_meta("t")) == META


def test_date_done_is_set_by_finished_states(backend: DatabaseBackend) -> None:
    """In UTC, without an offset."""
    before = utc_now()
    dates = {}
    for state in ("STARTED", "RETRY", "PROGRESS", "SUCCESS", "FAILURE", "REVOKED"):
        backend.store_result(state, ValueError() if state in states.EXCEPTION_STATES else None, state)
        dates[state] = backend.get_task_meta(state)["date_done"]
    done = {state: date for state, date in dates.items() if date is not None}

    assert set(done) == states.READY_STATES
    assert all(before <= date <= utc_now() for date in done.values())


def test_mark_as_started(backend: DatabaseBackend) -> None:
    """With what the worker says of itself."""
    backend.mark_as_started("t", pid=7, hostname="celery@shop")
    meta = backend.get_task_meta("t")

    assert (meta["status"], meta["result"]) == ("STARTED", {"pid": 7, "hostname": "celery@shop"})


def test_mark_as_done(backend: DatabaseBackend) -> None:
    """The value."""
    backend.mark_as_done("t", {"a": 1})

    assert (backend.get_state("t"), backend.get_result("t")) == ("SUCCESS", {"a": 1})


def test_mark_as_failure(backend: DatabaseBackend) -> None:
    """The exception with its type and arguments, and the traceback."""
    backend.mark_as_failure("t", KeyError("who", 7), traceback="Traceback …")
    found = backend.get_result("t")

    assert (type(found), found.args) == (KeyError, ("who", 7))
    assert (backend.get_state("t"), backend.get_traceback("t")) == ("FAILURE", "Traceback …")


def test_mark_as_retry(backend: DatabaseBackend) -> None:
    """The exception that caused it."""
    backend.mark_as_retry("t", Retry("again", ValueError("cause")), traceback="Traceback …")
    meta = backend.get_task_meta("t")

    assert (meta["status"], type(meta["result"]), meta["traceback"]) == ("RETRY", Retry, "Traceback …")


def test_mark_as_revoked(backend: DatabaseBackend) -> None:
    """With the reason."""
    backend.mark_as_revoked("t", "not needed")
    found = backend.get_result("t")

    assert (backend.get_state("t"), type(found), found.args) == ("REVOKED", TaskRevokedError, ("not needed",))


def test_children(backend: DatabaseBackend) -> None:
    """As results, whose own results can be had."""
    children = [AsyncResult(task_id, app=backend.app) for task_id in ("child-1", "child-2")]
    backend.store_result("t", None, states.SUCCESS, request=request(_children=children))
    backend.store_result("child-1", "hello", states.SUCCESS)
    found = AsyncResult("t", app=backend.app).children

    assert (found, found[0].get(timeout=5)) == (children, "hello")


def test_a_result_is_a_tuple_of_ids(backend: DatabaseBackend) -> None:
    """A task that returns the result of another."""
    other = AsyncResult("other", parent=AsyncResult("parent", app=backend.app), app=backend.app)
    backend.store_result("t", other, states.SUCCESS)

    assert backend.get_result("t") == [["other", [["parent", None], None]], None]


def test_forget(backend: DatabaseBackend) -> None:
    """The row is gone, also from the cache; a second time is fine."""
    backend.store_result("t", 1, states.SUCCESS)
    backend.get_task_meta("t")
    for _ in range(2):
        backend.forget("t")

    assert backend.get_state("t") == "PENDING"
    assert not backend.task_result_exists("t")


def test_forget_of_a_result_forgets_its_parent_too(backend: DatabaseBackend) -> None:
    """As Celery's `AsyncResult.forget` has it."""
    for task_id in ("t", "parent"):
        backend.store_result(task_id, 1, states.SUCCESS)
    AsyncResult("t", app=backend.app, parent=AsyncResult("parent", app=backend.app)).forget()

    assert [backend.get_state(task_id) for task_id in ("t", "parent")] == ["PENDING", "PENDING"]


def test_task_result_exists(backend: DatabaseBackend) -> None:
    """A row in whatever state."""
    ids = ["STARTED", "PROGRESS", "SUCCESS", "PENDING"]
    before = [backend.task_result_exists(state) for state in ids]
    for state in ids:
        backend.store_result(state, None, state)

    assert (before, [backend.task_result_exists(state) for state in ids]) == ([False] * 4, [True] * 4)


def test_success_is_cached_and_reloaded(backends: Backends) -> None:
    """`reload_task_result` asks again."""
    backend = backends(result_cache_max=10)
    backend.store_result("t", 1, states.SUCCESS)
    backend.get_task_meta("t")
    backend._forget("t")
    cached = backend.get_state("t")
    backend.reload_task_result("t")

    assert (cached, backend.get_state("t")) == ("SUCCESS", "PENDING")


def test_ids_differ_by_case_and_accents(backend: DatabaseBackend) -> None:
    """The usual collations of MariaDB would take one for the other."""
    for number, task_id in enumerate(ids := ["Task", "task", "tásk", "task🎉"]):
        backend.store_result(task_id, number, states.SUCCESS)

    assert [backend.get_result(task_id) for task_id in ids] == [0, 1, 2, 3]


def test_an_id_may_be_a_uuid(backend: DatabaseBackend) -> None:
    """As it comes out of a column of Django's; however often it is asked for."""
    task_id = UUID("0b9c3f5e-7d1a-4a53-9e0e-2f6f5a0c8d11")
    backend.store_result(str(task_id), 1, states.SUCCESS)
    assert [backend.get_task_meta(task_id, cache=False)["result"] for _ in range(8)] == [1] * 8
    found = backend.app.AsyncResult(task_id)
    assert (found.get(timeout=0), backend.app.GroupResult("g", [found]).ready()) == (1, True)
    backend.forget(task_id)
    assert not backend.task_result_exists(task_id)


def test_get_waits_no_longer_than_asked(backend: DatabaseBackend) -> None:
    """And says so as Celery does."""
    with pytest.raises(TimeoutError):
        AsyncResult("t", app=backend.app).get(timeout=0.01, interval=0.01)


def test_get_raises_the_error_of_the_task(backend: DatabaseBackend) -> None:
    """With the traceback of the worker behind it."""
    backend.mark_as_failure("t", ValueError("no"), traceback="Traceback …")

    with pytest.raises(ValueError, match="no"):
        AsyncResult("t", app=backend.app).get(timeout=5)
