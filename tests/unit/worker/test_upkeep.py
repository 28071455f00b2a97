"""The rounds of a worker."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest
from celery import Celery
from celery.signals import worker_ready, worker_shutdown

from celery_sql_results.worker.upkeep import Upkeep, Work
from support import app_on

#: Seconds in which what was asked for must have happened; generous, since a loaded machine is slow.
PATIENCE = 60.0
NAME = "celery-sql-results-upkeep"


class Sender:
    """Who sends a worker's signals."""

    def __init__(self, app: Celery) -> None:
        self.app = app


def threads() -> list[threading.Thread]:
    """The threads that keep something up."""
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_nothing_stops_it_and_each_kind_of_trouble_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """One task that fails keeps no other from being done. After it has succeeded, it is
    told again. Of a database that is away, somebody else tells."""
    outcomes = [OSError("one"), OSError("two"), ConnectionError("away"), ValueError("three"), None, ValueError("four")]
    rounds: list[int] = []
    over = threading.Event()

    def fail() -> None:
        outcome = outcomes[len(rounds)]
        if outcome:
            raise outcome

    def count() -> None:
        rounds.append(len(rounds))
        if len(rounds) == len(outcomes):
            upkeep.end()
            over.set()

    away: list[BaseException] = []
    tasks = {"failing": fail, "counting": count}

    def is_away(error: BaseException) -> bool:
        if isinstance(error, ConnectionError):
            away.append(error)
        return error in away

    upkeep = Upkeep(Work(tasks, 0.001, is_away, nullcontext(), bool))
    upkeep.start()
    assert over.wait(PATIENCE)
    upkeep.join(PATIENCE)

    assert not upkeep.is_alive()
    assert rounds == list(range(len(outcomes)))
    assert away == outcomes[2:3]
    assert [message.partition("(")[2].partition(")")[0] for message in caplog.messages] == [
        "OSError: one",
        "ValueError: three",
        "ValueError: four",
    ]


def test_it_begins_and_ends_with_a_worker() -> None:
    """The worker's signals are all that it takes."""
    app = app_on("sqlite://")
    worker_ready.send(sender=Sender(app))
    [upkeep] = threads()
    worker_shutdown.send(sender=Sender(app))
    upkeep.join(PATIENCE)

    assert threads() == []


def test_it_can_be_turned_off() -> None:
    """0 is never."""
    worker_ready.send(sender=Sender(app_on("sqlite://", database_upkeep_interval=0)))

    assert threads() == []


def test_other_backends_are_left_alone() -> None:
    """As in a process where another app has a worker."""
    app = app_on("sqlite://")
    app.conf.result_backend = "cache+memory://"
    worker_ready.send(sender=Sender(app))

    assert threads() == []
