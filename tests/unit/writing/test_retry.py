"""Repeating what failed for a reason that passes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from celery_sql_results.settings import Policy, RetryPolicy
from celery_sql_results.writing import Outage, Retries, Verdict, retry


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
    gives_up = options.pop("gives_up", retry.never)
    policy = Policy(**{"retries": 3, "window": 3600, "first_pause": 0.01, "longest_pause": 0.03, **options})
    outage = Outage("sqlite://", "sql+sqlite://", policy)
    return Retries(judge, RetryPolicy(writes=policy, reads=policy), outage).write("storing", operation, gives_up)


def judge(error: BaseException) -> Verdict:
    """As a database says it."""
    found = isinstance(error, DBAPIError)
    return Verdict(passes=found, lost=found and error.connection_invalidated)


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
    call(failing(*(busy() for _ in range(100))), retries=100, first_pause=0.2, longest_pause=0.2)

    assert all(0.1 <= pause <= 0.2 for pause in pauses)
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
    with caplog.at_level(logging.DEBUG):
        call(failing(busy(), busy()))

    assert caplog.messages == [
        "storing failed (OperationalError: database is locked); retry 1 in 0.01 s",
        "storing failed (OperationalError: database is locked); retry 2 in 0.02 s",
    ]


class Clock:
    """Time that passes only in pauses."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of retries."""
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


def test_the_window_is_used_up_to_its_end_and_not_longer(clock: Clock) -> None:
    """The last attempt is made when it ends."""
    attempts: list[float] = []

    def fail() -> str:
        attempts.append(clock.now - 1000)
        raise busy()

    with pytest.raises(OperationalError):
        call(fail, retries=float("inf"), window=240, first_pause=0.01, longest_pause=10)

    assert attempts[-1] == pytest.approx(240)
    assert all(later - earlier <= 10.001 for earlier, later in pairwise(attempts))


def test_an_attempt_that_takes_longer_than_the_window_is_the_last(clock: Clock) -> None:
    """It is the time that counts, not the pauses."""

    def hang() -> str:
        clock.sleep(300)
        raise busy()

    with pytest.raises(OperationalError):
        call(hang, retries=float("inf"), window=240)

    assert clock.now == 1300


def test_pauses_grow_for_as_long_as_it_takes(clock: Clock) -> None:
    """A float has its bounds."""
    errors = [busy() for _ in range(2000)]

    assert call(failing(*errors), retries=2000, window=float("inf")) == "done"


def test_who_gives_up_does_so_at_once(pauses: list[float]) -> None:
    """After the attempt that is made in any case."""
    with pytest.raises(OperationalError):
        call(failing(busy()), gives_up=lambda: True)

    assert (call(failing(), gives_up=lambda: True), pauses) == ("done", [])


def test_who_gives_up_in_a_pause_does_not_wait_for_its_end(clock: Clock) -> None:
    """It is cut into slices."""
    with pytest.raises(OperationalError):
        call(failing(busy()), window=3600, first_pause=100, longest_pause=100, gives_up=lambda: clock.now > 1001)

    assert clock.now == pytest.approx(1001.25)
