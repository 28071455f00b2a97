"""Final stays final: whatever the order in which states arrive."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from support import Backends

STATES = ("PENDING", "STARTED", "RETRY", "FAILURE", "REVOKED", "SUCCESS")


def survivor(order: tuple[str, ...]) -> int:
    """Which of several writes is the one that is found: the rule, told without SQL."""
    kept = 0
    for number, state in enumerate(order):
        stored = order[kept]
        if stored != states.SUCCESS and (stored not in states.READY_STATES or state in states.READY_STATES):
            kept = number
    return kept


def store(backend: DatabaseBackend, task_id: str, order: tuple[str, ...]) -> None:
    """Write the states one after the other, each with a result and a traceback that tell them apart."""
    for number, state in enumerate(order):
        result = ValueError(number) if state in states.EXCEPTION_STATES else [number]
        backend.store_result(task_id, result, state, traceback=f"traceback of {number}")


def found(backend: DatabaseBackend, task_id: str) -> tuple[str, Any, str, bool]:
    """State, number of the result, traceback, and whether there is a time."""
    meta = backend.get_task_meta(task_id)
    number = meta["result"].args[0] if isinstance(meta["result"], Exception) else meta["result"][0]
    return meta["status"], number, meta["traceback"], meta["date_done"] is not None


def expected(order: tuple[str, ...]) -> tuple[str, Any, str, bool]:
    """All columns are those of the same write."""
    kept = survivor(order)
    return order[kept], kept, f"traceback of {kept}", order[kept] in states.READY_STATES


def orders(length: int) -> Iterator[tuple[str, ...]]:
    """Every order of so many states, with repetitions."""
    return product(STATES, repeat=length)


@pytest.mark.parametrize("length", [2, 3])
def test_every_order(backend: DatabaseBackend, length: int) -> None:
    """State, result, traceback and time are always those of one and the same write."""
    for order in orders(length):
        store(backend, "-".join(order), order)

    assert {order: found(backend, "-".join(order)) for order in orders(length)} == {
        order: expected(order) for order in orders(length)
    }


@pytest.mark.parametrize(
    ("order", "kept"),
    [
        (("SUCCESS", "FAILURE"), "SUCCESS"),
        (("SUCCESS", "STARTED"), "SUCCESS"),
        (("SUCCESS", "SUCCESS"), "SUCCESS"),
        (("FAILURE", "SUCCESS"), "SUCCESS"),
        (("FAILURE", "STARTED"), "FAILURE"),
        (("REVOKED", "RETRY"), "REVOKED"),
        (("FAILURE", "REVOKED"), "REVOKED"),
        (("RETRY", "STARTED"), "STARTED"),
        (("STARTED", "PENDING"), "PENDING"),
    ],
)
def test_the_rule_itself(order: tuple[str, ...], kept: str) -> None:
    """In examples, so that it cannot be wrong on both sides."""
    assert order[survivor(order)] == kept


def test_a_second_success_keeps_the_first(backend: DatabaseBackend) -> None:
    """Also its extended columns: nothing at all is written."""
    backend.store_result("t", "first", states.SUCCESS)
    backend.store_result("t", "second", states.SUCCESS)

    assert backend.get_result("t") == "first"


def test_custom_states_are_unfinished(backend: DatabaseBackend) -> None:
    """They replace each other and are replaced, but replace nothing that is finished."""
    for state in ("PROGRESS", "HALF-WAY", "FAILURE", "PROGRESS"):
        backend.store_result("t", ValueError(state) if state == "FAILURE" else {}, state)

    assert backend.get_state("t") == "FAILURE"


def test_a_row_without_a_status_is_replaced(backends: Backends) -> None:
    """Somebody else's row, or one that Celery's own backend had no time to fill."""
    backend = backends()
    table = backend.models.task
    with backend.database.engine.begin() as connection:
        connection.execute(table.insert().values(task_id="t", status=None))
    backend.store_result("t", 1, states.SUCCESS)

    assert (backend.get_state("t"), backend.get_result("t")) == ("SUCCESS", 1)


def test_forgotten_tasks_begin_anew(backend: DatabaseBackend) -> None:
    """What was final is gone."""
    backend.store_result("t", 1, states.SUCCESS)
    backend.forget("t")
    backend.store_result("t", None, states.STARTED)

    assert backend.get_state("t") == "STARTED"
