"""Many at once: one query per process and tick, a thousand waiters in a process, many processes on one task."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from celery_sql_results.waiting.subscription import Row, Subscription
from concurrency.nursery import Nursery, complaints, errors
from servers import Database
from servers.pool import on
from support import Backends, Statements
from waiting.actors import until_here, until_they_wait, wait_alone
from waiting.conftest import PATIENCE, Aside, until, until_awaited
from waiting.writer import Writer

WAITERS, PROCESSES = 50, 20
#: Seconds between two looks in the test that counts them.
TICK = 0.02


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that others are forked from."""
    with Nursery() as nursery:
        yield nursery


def ids(number: int, prefix: str = "t") -> list[str]:
    """Some ids."""
    return [f"{prefix}-{index:04d}" for index in range(number)]


def looks(seen: list[str]) -> list[str]:
    """The statements that ask for results."""
    return [statement for statement in seen if "FROM celery_taskmeta " in " ".join(statement.split()) + " "]


def until_looked(backend: DatabaseBackend, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Return after some looks: those for waits of another age are not for the same ids yet."""
    looks = backend.looker.looks
    until(lambda: backend.looker.looks > looks + 20 or meanwhile())


@on("postgresql", "mariadb", "portable")
def test_one_query_per_tick_for_all_threads(
    statements: Statements, backends: Backends, writer: Writer, aside: Aside
) -> None:
    """50 threads wait for 50 tasks. Each tick costs one query, so their number is bounded by the time, not by 50."""
    backend = backends(database_listen=False, database_poll_min_interval=TICK, database_poll_max_interval=TICK)
    values = [aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE) for task_id in ids(WAITERS)]
    until_awaited(backend, *ids(WAITERS))
    until_looked(backend)
    began = time.monotonic()
    with statements() as seen:
        until(lambda: time.monotonic() - began > 50 * TICK)
        until_looked(backend)
    ticks = (time.monotonic() - began) / TICK + 1
    writer.store_all([(task_id, task_id, states.SUCCESS) for task_id in ids(WAITERS)])

    assert [value.result() for value in values] == ids(WAITERS)
    assert 0 < len(looks(seen)) <= ticks + WAITERS  # each wait begins with one look of its own


@on("mariadb", "sqlite")
def test_a_query_asks_for_all_tasks(statements: Statements, backends: Backends, writer: Writer, aside: Aside) -> None:
    """Where the ids can be read in the statement."""
    backend = backends(database_poll_min_interval=TICK, database_poll_max_interval=TICK)
    with statements() as seen:
        values = [aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE) for task_id in ids(WAITERS)]
        until_awaited(backend, *ids(WAITERS))
        until_looked(backend, lambda: writer.store("other"))
    writer.store_all([(task_id, task_id, states.SUCCESS) for task_id in ids(WAITERS)])

    assert [value.result() for value in values] == ids(WAITERS)
    assert any(all(f"'{task_id}'" in statement for task_id in ids(WAITERS)) for statement in looks(seen))


@on("postgresql", "mariadb", "sqlite")
def test_a_thousand_waiters_in_one_process(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """A group of 900, and 100 threads that wait for one task each."""
    many, single = ids(900, "many"), ids(100, "single")
    group = backend.app.GroupResult("g", [backend.app.AsyncResult(task_id) for task_id in many])
    joined = aside(group.get, timeout=PATIENCE)
    values = [aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE) for task_id in single]
    until_awaited(backend, *many, *single)
    writer.store_all([(task_id, task_id, states.SUCCESS) for task_id in [*reversed(single), *reversed(many)]])

    assert [value.result() for value in values] == single
    assert joined.result() == many


@on("postgresql", "mariadb", "sqlite")
def test_a_thousand_waits_for_tasks_that_have_begun(
    backend: DatabaseBackend, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by itself; nobody is offered a row that he does not miss, so a look costs no more than its rows."""
    begun, offered, offer = ids(1000), Counter[bool](), Subscription.offer

    def noted(wait: Subscription, rows: Collection[Row]) -> None:
        offered.update(row["task_id"] in wait.task_ids for row in rows)
        offer(wait, rows)

    monkeypatch.setattr(Subscription, "offer", noted)
    writer.store_all([(task_id, None, states.STARTED) for task_id in begun])
    finished: set[str] = set()
    results = [backend.app.AsyncResult(task_id) for task_id in begun]
    for result in results:
        result.then(lambda result: finished.add(result.id))
    until_awaited(backend, *begun)
    until(lambda: offered[True] > 2 * len(begun))
    writer.store_all([(task_id, task_id, states.SUCCESS) for task_id in begun])
    until(lambda: len(finished) == len(begun))

    assert offered[False] == 0


@on("postgresql")
@pytest.mark.usefixtures("news")
def test_many_threads_on_one_task(backend: DatabaseBackend, database: Database, writer: Writer, aside: Aside) -> None:
    """All wake, and they have left one row."""
    values = [aside(backend.app.AsyncResult("t").get, timeout=PATIENCE) for _ in range(100)]
    until(lambda: len(backend.looker.awaited()) == 100)
    rows = database.execute("SELECT count(*) FROM celery_taskmeta_waiters")
    writer.store("t", 1)

    assert [value.result() for value in values] == [1] * 100
    assert rows == [(1,)]


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.usefixtures("news")
def test_many_processes_on_one_task(
    database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside, nursery: Nursery
) -> None:
    """20 processes, which wait already when the task is stored, wake; none complains, and the server sees no error."""
    names = ids(PROCESSES, "process")
    backend.states_of(["warm"])
    outcomes = aside(nursery.at_once, [(wait_alone, (database.url, name, "t")) for name in names])
    until_here(backend, *names)
    until_they_wait(database, "t", PROCESSES)
    writer.store("t", 1)
    ended = outcomes.result()

    assert (errors(ended), complaints(ended)) == ([], [])
    assert [outcome.value for outcome in ended] == [1] * PROCESSES
    assert database.errors() == []
