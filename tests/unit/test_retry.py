"""Repeating what failed for a reason that passes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from celery_sql_results import retry


def busy(*, invalidated: bool = False) -> OperationalError:
    """An error with a statement and a payload in it."""
    orig = sqlite3.OperationalError("database is locked")
    return OperationalError(
        "INSERT INTO celery_taskmeta", {"result": "payload"}, orig, connection_invalidated=invalidated
    )


def failing(*errors: Exception) -> Callable[[], str]:
    """An operation that raises each error once, then returns."""
    left: Iterator[Exception] = iter(errors)

    def operation() -> str:
        error = next(left, None)
        if error is not None:
            raise error
        return "done"

    return operation


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses in seconds, which are not waited for, and the jitter at its most."""
    found: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", found.append)
    monkeypatch.setattr(retry.random, "uniform", lambda _least, most: most)
    return found


def call(operation: Callable[[], str], **options: Any) -> str:
    """Call with a policy of 3 retries."""
    policy = {"retries": 3, "first_pause": 0.01, "longest_pause": 0.03, **options}
    return retry.call(operation, name="storing", is_transient=lambda error: isinstance(error, DBAPIError), **policy)


def test_success_is_returned_at_once(pauses: list[float]) -> None:
    """Nothing is paid when nothing fails."""
    assert (call(failing()), pauses) == ("done", [])


def test_pauses_double_up_to_the_longest(pauses: list[float]) -> None:
    """And a retry that succeeds is a success."""
    found = call(failing(busy(), busy(), busy()))

    assert (found, pauses) == ("done", [0.01, 0.02, 0.03])


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_last_error_is_raised_when_retries_are_used_up(pauses: list[float], retries: int) -> None:
    """So many retries, not so many attempts."""
    errors = [busy() for _ in range(9)]

    with pytest.raises(OperationalError) as caught:
        call(failing(*errors), retries=retries)

    assert (caught.value, len(pauses)) == (errors[retries], retries)


def test_pauses_are_jittered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a half and the whole, so that a fleet does not come back at once."""
    pauses: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    call(failing(*(busy() for _ in range(100))), retries=100, first_pause=1, longest_pause=1)

    assert all(0.5 <= pause <= 1 for pause in pauses)
    assert len(set(pauses)) > 50


def test_a_permanent_error_is_raised_at_once(pauses: list[float]) -> None:
    """It would be the same tomorrow."""
    with pytest.raises(ValueError, match="wrong"):
        call(failing(ValueError("wrong")))

    assert pauses == []


def test_a_stale_connection_is_replaced_at_once(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """The pool did not know that it was dead: no pause, no log, no retry used up."""
    found = call(failing(busy(invalidated=True)), retries=0)

    assert (found, pauses, caplog.messages) == ("done", [], [])


def test_a_second_stale_connection_is_a_failure(pauses: list[float]) -> None:
    """A server that is gone must not be asked in a tight loop."""
    call(failing(busy(invalidated=True), busy(invalidated=True), busy(invalidated=True)))

    assert pauses == [0.01, 0.02]


def test_the_log_says_what_failed_and_shows_no_payload(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """The driver's own words, without SQLAlchemy's statement and parameters."""
    with caplog.at_level(logging.WARNING):
        call(failing(busy(), busy()))

    assert caplog.messages == [
        "storing failed (OperationalError: database is locked); retry 1 in 0.01 s",
        "storing failed (OperationalError: database is locked); retry 2 in 0.02 s",
    ]
