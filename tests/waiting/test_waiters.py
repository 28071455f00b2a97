"""Rows of waiters: renewed while somebody waits, swept by any worker when their process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from celery_sql_results.waiting import asking
from servers import Database
from servers.pool import on
from support import Backends
from waiting.conftest import PATIENCE, Aside, until, until_told
from waiting.writer import Writer

with_rows = on("postgresql", "psycopg2")
ROWS = "SELECT awaited_id FROM celery_taskmeta_waiters ORDER BY 1"
AGED = "UPDATE celery_taskmeta_waiters SET date_added = date_added - interval '{} seconds'"
WAITS = "import sys; from support import app_on; app_on(sys.argv[1]).AsyncResult('dead').{}"


def sweep(backend: DatabaseBackend) -> None:
    """Do what a worker does now and then."""
    for task in backend.upkeep.tasks.values():
        task()


def ended_by(database: Database, number: signal.Signals, how: str = "get()") -> None:
    """A process that waits, and is ended by a signal."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen([sys.executable, "-c", WAITS.format(how), database.url], env=environment)
    until(lambda: ("dead",) in database.execute(ROWS), "its row")
    process.send_signal(number)
    process.wait()


@with_rows
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.usefixtures("news")
def test_the_row_of_a_process_that_has_died(
    database: Database, backend: DatabaseBackend, aside: Aside, number: signal.Signals
) -> None:
    """It is swept when it is a minute old, and no earlier; the row of one that lives stays."""
    backend.states_of(["warm"])
    ended_by(database, number)
    database.execute(AGED.format(40))
    value = aside(backend.app.AsyncResult("alive").get, timeout=PATIENCE)
    until_told(backend, "alive")
    sweep(backend)
    young = database.execute(ROWS)
    database.execute(f"{AGED.format(21)} WHERE awaited_id = 'dead'")
    sweep(backend)
    old = database.execute(ROWS)
    backend.store_result("alive", 1, states.SUCCESS)

    assert (young, old, value.result()) == ([("alive",), ("dead",)], [("alive",)], 1)


@with_rows
def test_rows_are_renewed(
    database: Database, backend: DatabaseBackend, aside: Aside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever waits for long, in looks that there are anyway: of `get` and of `then`."""
    monkeypatch.setattr(asking, "RENEWAL", 0.1)
    value = aside(backend.app.AsyncResult("sat").get, timeout=PATIENCE)
    watched = backend.app.AsyncResult("watched")
    watched.then(print)
    until_told(backend, "sat", "watched")
    database.execute(AGED.format(1000))
    renewed = "SELECT count(*) FROM celery_taskmeta_waiters WHERE date_added > timezone('UTC', now()) - interval '60 s'"
    until(lambda: database.execute(renewed) == [(2,)])
    sweep(backend)
    left = database.execute(ROWS)
    backend.store_result("sat", 1, states.SUCCESS)

    assert (left, value.result()) == ([("sat",), ("watched",)], 1)


@with_rows
@pytest.mark.usefixtures("told_only")
def test_dates_are_those_of_the_server(
    database: Database, backend: DatabaseBackend, aside: Aside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In UTC, whatever the time zone of the server or of the connection is."""
    database.server.execute(f"ALTER DATABASE \"{database.name}\" SET timezone TO 'Asia/Shanghai'")
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_told(backend, "t")
    age = "SELECT abs(extract(epoch FROM timezone('UTC', now()) - date_added)) < 60 FROM celery_taskmeta_waiters"
    fresh = database.execute(age)
    backend.store_result("t", 1, states.SUCCESS)

    assert (fresh, value.result()) == ([(True,)], 1)


@with_rows
@pytest.mark.usefixtures("told_only")
def test_a_wait_in_many_short_ones(database: Database, backends: Backends, writer: Writer) -> None:
    """Its row is left once, and stays from one to the next: what is stored in between is made known."""
    backend = backends()
    result = backend.app.AsyncResult("t")
    for _ in range(20):
        with pytest.raises(Exception, match="timed out"):
            result.get(timeout=0.01)
    assert database.execute(ROWS) == [("t",)]
    writer.store("t", 1)

    assert (result.get(timeout=PATIENCE), database.execute(ROWS)) == (1, [])
