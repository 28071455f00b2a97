"""One looker for all apps of a process that wait on the same tables: nothing is held before or after it is needed."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from celery_sql_results.waiting import Looker
from servers import Database
from servers.pool import on
from support import ENDED_WITHIN, Backends, app_on
from waiting.conftest import PATIENCE, Aside, everywhere, until, until_awaited
from waiting.test_traces import listeners
from waiting.writer import Writer

PROGRAM = Path(__file__).with_name("apps.py")
#: More apps than the process may open files.
APPS, FILES = 1000, 1024
#: Where nothing tells of changes.
POLLED = {"mariadb", "portable"}
THREADS = {"celery-sql-results-look", "celery-sql-results-listen"}


def two_that_wait(backends: Backends, aside: Aside) -> tuple[list[DatabaseBackend], list[object]]:
    """Two apps of which each waits for a result."""
    two = [backends(), backends()]
    values = [aside(two[n].app.AsyncResult(f"t-{n}").get, timeout=PATIENCE) for n in range(2)]
    until_awaited(two[0], "t-0", "t-1")
    until(lambda: two[0].looker.looks > 0)
    return two, values


@everywhere
@pytest.mark.usefixtures("news")
def test_two_apps_have_one_looker(database: Database, backends: Backends, writer: Writer, aside: Aside) -> None:
    """Which ends with the second of them, at once, with its connection."""
    two, values = two_that_wait(backends, aside)
    [looks, *listens] = two[0].looker.threads
    assert (two[0].looker is two[1].looker, len(listens)) == (True, 0 if database.kind in POLLED else 1)
    if database.kind == "postgresql":
        until(lambda: two[0].looker.is_told(["t-0", "t-1"]))
        assert listeners(database) == 1
    writer.store_all([("t-0", 0, states.SUCCESS), ("t-1", 1, states.SUCCESS)])
    assert [value.result() for value in values] == [0, 1]  # type: ignore[attr-defined]
    two[0].app.close()
    time.sleep(0.05)
    stays = looks.is_alive()
    two[1].app.close()
    for thread in (looks, *listens):
        thread.join(ENDED_WITHIN)

    assert (stays, looks.is_alive(), listeners(database)) == (True, False, 0)


@on("postgresql", "sqlite")
@pytest.mark.parametrize("how", ["other settings", "other tables"])
def test_apps_that_differ_have_their_own(backends: Backends, writer: Writer, aside: Aside, how: str) -> None:
    """What one of them reads would not do for the other."""
    settings = {"result_extended": True} if how == "other settings" else {"database_table_names": {"task": "other"}}
    one, other = backends(), backends(**settings)
    value = aside(one.app.AsyncResult("t").get, timeout=PATIENCE)
    extended = aside(other.app.AsyncResult("t").get, timeout=PATIENCE)
    until_awaited(one, "t")
    until_awaited(other, "t")
    for backend in (one, other):
        backend.store_result("t", 1, states.SUCCESS)

    assert (one.looker is other.looker, value.result(), extended.result()) == (False, 1, 1)


@everywhere
def test_an_app_that_is_collected(database: Database, writer: Writer) -> None:
    """Ends what it had, at once, as if it had been closed."""
    app = app_on(database.url)
    writer.store("t", 1)
    assert app.AsyncResult("t").get(timeout=PATIENCE) == 1
    result = app.AsyncResult("never")
    result.then(print)
    running = app.backend.looker.threads
    assert running != []
    del app, result

    def has_ended() -> bool:
        gc.collect()
        return not any(thread.is_alive() for thread in running)

    until(has_ended)
    until(lambda: listeners(database) == 0)  # the server notices that a little later


@on("postgresql", "sqlite")
def test_an_app_that_is_closed_can_go_on(backends: Backends, writer: Writer, aside: Aside) -> None:
    """Whoever sits through a wait gets his result, nobody is called back, and the next wait begins anew."""
    backend, called = backends(), list[object]()
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    watched = backend.app.AsyncResult("watched")
    watched.then(called.append)
    until_awaited(backend, "t", "watched")
    backend.app.close()
    until(lambda: "watched" not in backend.looker.awaited())
    writer.store_all([(task_id, 1, states.SUCCESS) for task_id in ("watched", "t")])
    assert value.result() == 1
    value = aside(backend.app.AsyncResult("later").get, timeout=PATIENCE)
    until_awaited(backend, "later")
    writer.store("later", 2)

    assert (value.result(), called) == (2, [])


def lookers() -> list[Looker]:
    """All that there are."""
    return [thing for thing in gc.get_objects() if isinstance(thing, Looker)]


@on("postgresql", "sqlite")
def test_apps_leave_nothing_to_a_fork(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there were, a fork has no more to do, and no object of theirs is left."""
    hooks: list[object] = []
    of_others = {id(looker) for looker in lookers()}
    with app_on(database.url) as app:
        app.backend.states_of(["warm"])
    monkeypatch.setattr(os, "register_at_fork", lambda **given: hooks.append(given))
    for number in range(20):
        with app_on(database.url) as app:
            result = app.AsyncResult(f"t-{number}")
            result.then(print)
            app.backend.store_result(result.id, 1, states.SUCCESS)
    del app, result

    def are_gone() -> bool:
        gc.collect()
        return all(id(looker) in of_others for looker in lookers())

    until(are_gone)
    assert hooks == []


@on("postgresql", "psycopg2", "mariadb", "sqlite")
def test_a_thousand_apps_in_one_process(database: Database) -> None:
    """Which get what is ready, wait one after the other, and all together; a file for each would be too many."""
    path = os.pathsep.join([str(PROGRAM.parents[1]), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), database.url, str(APPS), str(FILES)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=4 * PATIENCE,
    )
    assert (ended.stderr, ended.returncode) == ("", 0)
    seen = json.loads(ended.stdout)

    assert seen["values"] == {"ready": APPS, "in turn": APPS, "together": APPS, "again": APPS}
    assert seen["idle"] == {"threads": [], "descriptors": 0}
    assert seen["at work"]["descriptors"] < 50
    assert set(seen["at work"]["threads"]) <= THREADS
