"""Waiting leaves nothing behind: no rows, no thread, no connection."""

from __future__ import annotations

import pytest
from celery import states
from celery.exceptions import TimeoutError

from celery_sql_results import DatabaseBackend
from celery_sql_results.waiting import looker as consumer_module
from servers import Database
from servers.pool import on
from waiting.conftest import PATIENCE, Aside, everywhere, until, until_told
from waiting.test_faults import LISTENERS
from waiting.writer import Writer

with_rows = on("postgresql", "psycopg2")


def rows(database: Database) -> list[str]:
    """The tasks that somebody has left a row for."""
    return [task_id for (task_id,) in database.execute("SELECT awaited_id FROM celery_taskmeta_waiters ORDER BY 1")]


@with_rows
def test_a_result_takes_its_row_away(
    database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside
) -> None:
    """The writer removes it, as soon as the task is finished and not before."""
    values = [aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE) for task_id in "ab"]
    until_told(backend, "a", "b")
    before = rows(database)
    writer.store("a", None, states.STARTED)
    begun = rows(database)
    writer.store_all([("a", 1, states.SUCCESS), ("b", "no", states.FAILURE)])

    assert (before, begun, rows(database)) == (["a", "b"], ["a", "b"], [])
    assert (values[0].result(), str(values[1].exception())) == (1, "no")


@with_rows
@pytest.mark.parametrize("timeout", [0, 0.1])
def test_a_timeout_takes_its_row_away(database: Database, backend: DatabaseBackend, timeout: float) -> None:
    """And an error of whoever waits, too."""

    def give_up() -> None:
        raise KeyError

    with pytest.raises(TimeoutError):
        backend.app.AsyncResult("t").get(timeout=timeout)
    with pytest.raises(TimeoutError):
        backend.app.GroupResult("g", [backend.app.AsyncResult(task_id) for task_id in "ab"]).get(timeout=timeout)
    with pytest.raises(KeyError):
        backend.app.AsyncResult("t").get(timeout=PATIENCE, interval=0.01, on_interval=give_up)

    until(lambda: rows(database) == [], "the end of the rows")


@with_rows
def test_one_of_two_waits_ends(database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """The row stays for the other, which is told."""
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_told(backend, "t")
    with pytest.raises(TimeoutError):
        backend.app.AsyncResult("t").get(timeout=0.05)
    left = rows(database)
    writer.store("t", 1)

    assert (left, value.result(), rows(database)) == (["t"], 1, [])


@with_rows
def test_what_is_ready_leaves_no_row(database: Database, backend: DatabaseBackend, writer: Writer) -> None:
    """Nor does a large set, which is polled."""
    writer.store("t", 1)
    backend.app.AsyncResult("t").get(timeout=PATIENCE)
    many = [backend.app.AsyncResult(f"many-{number}") for number in range(500)]
    with pytest.raises(TimeoutError):
        backend.app.GroupResult("g", many).get(timeout=0.05)

    assert rows(database) == []


@everywhere
def test_the_thread_ends(
    database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody has waited for a while, with its connection; and begins anew with the next wait."""
    monkeypatch.setattr(consumer_module, "LINGER", 0.05)
    for task_id in "ab":
        value = aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE)
        until(lambda: backend.looker.threads)
        writer.store(task_id, task_id)
        assert value.result() == task_id
        until(lambda: not backend.looker.threads)
        until(lambda: listeners(database) == 0)
        until(lambda: backend.database.engine.pool.checkedout() == 0)  # type: ignore[attr-defined]


def listeners(database: Database) -> int:
    """The connections on which somebody listens."""
    if database.kind != "postgresql":
        return 0
    ((number,),) = database.execute(f"SELECT count(*) {LISTENERS}")
    return int(number)


def test_the_thread_stays_as_long_as_somebody_waits(
    backend: DatabaseBackend, writer: Writer, aside: Aside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that is."""
    monkeypatch.setattr(consumer_module, "LINGER", 0.01)
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until(lambda: backend.looker.threads)
    looks = backend.looker.threads[0]
    with pytest.raises(TimeoutError):
        backend.app.AsyncResult("other").get(timeout=0.2)
    same = backend.looker.threads[0] is looks
    writer.store("t", 1)

    assert (value.result(), same) == (1, True)
