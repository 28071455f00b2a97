"""Reading is lenient: what only informs never keeps state and value from being read, nor the value the state."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import celery.result
import pytest
import sqlalchemy as sa
from celery import states
from celery.exceptions import SecurityError, SoftTimeLimitExceeded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.serialization import register, unregister

from celery_sql_results import DatabaseBackend
from servers import Database
from support import Backends, app_on, close, parent, request

JSON, YAML = "application/json", "application/x-yaml"
REASONS = (ContentDisallowed, DecodeError, SecurityError)


def spoil(backend: DatabaseBackend, task_id: str = "t", **columns: Any) -> None:
    """Write into columns of a row, past the backend."""
    table = backend.task_cls.__table__
    with backend.ResultSession() as session:
        session.execute(sa.update(table).where(table.c.task_id == task_id).values(columns))
        session.commit()


def both(backend: DatabaseBackend, task_id: str = "t") -> list[Any]:
    """Results that have not looked yet: Celery's and ours."""
    return [celery.result.AsyncResult(task_id, app=backend.app), backend.app.AsyncResult(task_id)]


@pytest.mark.parametrize("column", ["children", "args", "kwargs", "stamps"])
@pytest.mark.parametrize("garbage", [b"\xff", b"7", b'[["a"]]', b"{", b"\x80\x04garbage", b"\x00celery-compressed\x00"])
def test_what_only_informs(backends: Backends, column: str, garbage: bytes) -> None:
    """The value, the state and the other columns are read."""
    backend = backends(result_extended=True)
    backend.store_result("t", {"a": 1}, states.SUCCESS, request=request(args=[1], kwargs={"b": 2}))
    spoil(backend, **{column: garbage})
    known = {"args": [1], "kwargs": {"b": 2}, "children": None, "name": "shop.pay", "retries": 2}
    found = [(each.state, each.get(timeout=0), each.result, each.worker) for each in both(backend)]
    meta = backend.get_task_meta("t")

    assert found == [("SUCCESS", {"a": 1}, {"a": 1}, "celery@shop-1")] * 2
    assert [name for name, value in known.items() if name != column and meta[name] != value] == []
    assert meta.get("stamped_headers") is None


def test_a_time_limit_is_none_of_these(backends: Backends) -> None:
    """It strikes in the task that reads, wherever that is just now."""

    def strike(text: str) -> Any:
        raise SoftTimeLimitExceeded

    register("striking", json.dumps, strike, "application/x-striking", "utf-8")
    try:
        backend = backends(result_serializer="striking", accept_content=["striking"])
        backend.store_result("t", 1, states.SUCCESS)
        with pytest.raises(SoftTimeLimitExceeded):
            backend.get_task_meta("t")
    finally:
        unregister("striking")


VALUES: dict[str, dict[str, Any]] = {
    "broken": {"result": b'{"a": '},
    "not accepted": {"result": b"a: 1", "content_type": YAML},
    "pickle of a class": {"result": b"\x80\x04cos\nsystem\n."},
    "compressed, but not": {"result": b"\x00celery-compressed\x00application/x-gzip\x00no"},
}
each_value = pytest.mark.parametrize("columns", VALUES.values(), ids=VALUES)


@each_value
def test_a_value_that_cannot_be_read(backends: Backends, columns: dict[str, Any]) -> None:
    """The state stands and so does the rest; the value says why, and `get` raises it, before and after a look."""
    backend = backends(result_extended=True)
    backend.store_result("t", 1, states.SUCCESS, traceback="so", request=request(args=[1], kwargs={}))
    spoil(backend, **columns)
    for result in both(backend):
        with pytest.raises(REASONS):
            result.get(timeout=0)
        looked = (result.state, result.ready(), result.successful(), result.traceback, result.name)
        with pytest.raises(REASONS) as told:
            result.get(timeout=0)
        with pytest.raises(REASONS):
            result.get(timeout=0, propagate=False)

        assert looked == ("SUCCESS", True, True, "so", "shop.pay")
        assert (repr(result.result), repr(result.info)) == (repr(told.value), repr(told.value))
    meta = backend.wait_for("t", timeout=0)
    assert (meta["status"], isinstance(meta["result"], REASONS), backend.task_result_exists("t")) == (
        "SUCCESS",
        True,
        True,
    )


def test_its_children_are_results(backend: DatabaseBackend) -> None:
    """As those of any other result are."""
    child = backend.app.AsyncResult("child")
    backend.store_result("t", 1, states.SUCCESS, request=parent(child))
    spoil(backend, result=b"{")

    assert [each.children for each in both(backend)] == [[child], [child]]


@each_value
def test_among_others(backend: DatabaseBackend, columns: dict[str, Any]) -> None:
    """A group raises it, however it is nested or read; the states of all are read, and the others have their values."""
    for number, task_id in enumerate(ids := ["a", "t", "b"]):
        backend.store_result(task_id, number, states.SUCCESS)
    spoil(backend, **columns)
    app = backend.app
    members = lambda: [app.AsyncResult(each) for each in ids]  # noqa: E731
    sets: list[Callable[[], Any]] = [
        lambda: app.GroupResult("g", members()),
        lambda: app.GroupResult("g", [app.GroupResult("inner", members()), app.AsyncResult("b")]),
        lambda: celery.result.ResultSet([celery.result.AsyncResult(each, app=app) for each in ids]),
    ]
    for make in sets:
        for join in (make().get, make().join, make().join_native):
            with pytest.raises(REASONS):
                join(timeout=5)
        with pytest.raises(REASONS):
            make().get(timeout=5, propagate=False)

    assert [(each.ready(), each.successful(), each.failed()) for each in (make() for make in sets)] == [
        (True, True, False)
    ] * 3
    assert {task_id: meta["status"] for task_id, meta in backend.get_many(ids, timeout=5)} == dict.fromkeys(
        ids, "SUCCESS"
    )


def test_of_a_task_that_runs(backend: DatabaseBackend) -> None:
    """The state says how far it is; when it is done, its value is read."""
    backend.store_result("t", {"done": 5}, "PROGRESS")
    spoil(backend, result=b"\xff")
    found = [(each.state, isinstance(each.info, DecodeError), each.ready()) for each in both(backend)]
    backend.store_result("t", 1, states.SUCCESS)

    assert (found, backend.app.AsyncResult("t").get(timeout=0)) == ([("PROGRESS", True, False)] * 2, 1)


NO_EXCEPTIONS = [{"custom": "…"}, "Some error message", ["x"], None, 7, {}, {"exc_type": 7}]


@pytest.mark.parametrize("state", [states.FAILURE, states.REVOKED, states.RETRY])
@pytest.mark.parametrize("value", NO_EXCEPTIONS, ids=repr)
def test_a_failure_without_an_exception(backend: DatabaseBackend, value: object, state: str) -> None:
    """`update_state(state=FAILURE, meta=…)`: it has failed, and its exception says that there was none."""
    backend.store_result("t", value, state, traceback="so")
    members = backend.app.GroupResult("g", [backend.app.AsyncResult("t")])
    for result in both(backend):
        assert (result.state, result.traceback, result.failed()) == (state, "so", state == states.FAILURE)
        assert isinstance(result.result, DecodeError) or (state == states.RETRY and not value)
        if state != states.RETRY:
            with pytest.raises(DecodeError, match="the row tells of a failure"):
                result.get(timeout=0)
            assert isinstance(result.get(timeout=0, propagate=False), DecodeError)
    if state != states.RETRY:
        assert [type(each) for each in members.get(timeout=5, propagate=False)] == [DecodeError]


@pytest.fixture
def extended(backends: Backends) -> DatabaseBackend:
    """A backend that reads every column."""
    return backends(result_extended=True)


GARBAGE = st.binary(max_size=40) | st.sampled_from(
    [b"null", b"[]", b"{}", b'"\\ud800"', b"[[[[]]]]", b'{"stamps": {}}']
)
STATES = st.sampled_from([*sorted(states.ALL_STATES), "PROGRESS", ""])


@given(
    state=STATES,
    result=GARBAGE,
    informing=st.fixed_dictionaries(dict.fromkeys(["children", "args", "kwargs", "stamps"], GARBAGE)),
    content_type=st.sampled_from([JSON, YAML, None, "application/x-msgpack", "application/data", "\u00e9"]),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage(
    extended: DatabaseBackend, state: str, result: bytes, informing: dict[str, bytes], content_type: str | None
) -> None:
    """Whatever a row holds: its state is read by both classes of results, and its value by `get` or not at all."""
    extended.forget("t")
    extended.store_result("t", 1, states.STARTED)
    spoil(extended, status=state, result=result, content_type=content_type, **informing)
    for each in both(extended):
        assert (each.state, each.ready()) == (state, state in states.READY_STATES)
        assert isinstance(each.children, (list, type(None)))
        value = each.result
        if state in states.READY_STATES:
            try:
                got = each.get(timeout=0)
            except Exception as error:  # noqa: BLE001 - any exception that the row names
                got = error
            assert repr(got) == repr(value)


def test_what_cannot_be_read_is_not_shown_in_the_log(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Which column of which task it was, and what kind of error; none of its content."""
    backend = app_on(sqlite.url, result_extended=True).backend
    backend.store_result("t", 1, states.SUCCESS, request=request())
    spoil(backend, args=b'{"card": "4242', result=b'"4242')
    with caplog.at_level("DEBUG", "celery_sql_results"):
        backend.get_task_meta("t")
    close(backend)

    assert "args of task t cannot be read (DecodeError)" in caplog.messages
    assert [message for message in caplog.messages if "4242" in message] == []
