"""How often the server is asked, counted at the server (on SQLite, in SQLite).

The portable implementation is not counted: it knows nothing of its database, so it looks before it writes, in a
transaction.
"""

from __future__ import annotations

import re
import time

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import on
from support import Backends, Statements

VERBS = {"INSERT", "SELECT", "UPDATE", "DELETE"}

databases = on("postgresql", "mariadb", "sqlite")


@pytest.fixture
def ready(statements: Statements, backends: Backends) -> DatabaseBackend:
    """A backend whose connection is open and whose statements were used once."""
    backend = backends()
    backend.store_result("warm", 1, states.SUCCESS)
    backend.get_task_meta("warm")
    list(backend.get_many(["warm"]))
    backend.forget("warm")
    group(backend, "warm").save()
    backend.restore_group("warm", cache=False)
    backend.delete_group("warm")
    return backend


def group(backend: DatabaseBackend, group_id: str) -> GroupResult:
    """A group of two."""
    return GroupResult(group_id, [AsyncResult(member, app=backend.app) for member in "ab"], app=backend.app)


def verbs(seen: list[str]) -> list[str]:
    """The first verb of each statement, also of one that begins with WITH."""
    words = (re.findall(r"\w+", statement.upper()) for statement in seen)
    return [next((word for word in found if word in VERBS), found[0]) for found in words]


def await_departure(database: Database) -> None:
    """Return when nobody else is connected."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while database.execute(others) != [(0,)]:
        time.sleep(0.01)


@databases
@pytest.mark.parametrize("state", ["STARTED", "SUCCESS", "FAILURE"])
def test_a_write_is_one_statement(statements: Statements, ready: DatabaseBackend, state: str) -> None:
    """The first, and one that replaces: no BEGIN, no COMMIT, no ROLLBACK, no ping."""
    result = ValueError() if state == "FAILURE" else 1
    with statements() as seen:
        ready.store_result("t", None, "STARTED")
        ready.store_result("t", result, state)

    assert verbs(seen) == ["INSERT", "INSERT"]


@databases
def test_an_extended_write_is_one_statement(statements: Statements, backends: Backends) -> None:
    """Also with the columns of `result_extended`."""
    backend = backends(result_extended=True)
    backend.store_result("warm", 1, states.SUCCESS)
    with statements() as seen:
        backend.store_result("t", 1, states.SUCCESS)

    assert verbs(seen) == ["INSERT"]


@databases
def test_a_poll_is_one_statement(statements: Statements, ready: DatabaseBackend) -> None:
    """Of a task that is there and of one that is not."""
    ready.store_result("t", 1, states.SUCCESS)
    with statements() as seen:
        states_ = [ready.get_task_meta(task_id)["status"] for task_id in ("t", "missing")]

    assert (verbs(seen), states_) == (["SELECT", "SELECT"], ["SUCCESS", "PENDING"])


@databases
def test_a_thousand_results_are_one_statement(statements: Statements, ready: DatabaseBackend) -> None:
    """PostgreSQL takes them as one array, the others as parameters."""
    rows = [{"task_id": f"id-{number}", "status": "SUCCESS", "result": b"1"} for number in range(1000)]
    with ready.database.engine.begin() as connection:
        connection.execute(ready.models.task.insert(), rows)
    with statements() as seen:
        found = {task_id for task_id, _ in ready.get_many(row["task_id"] for row in rows)}

    assert (verbs(seen), len(found)) == (["SELECT"], 1000)


@databases
def test_getting_what_is_ready_is_one_statement(statements: Statements, ready: DatabaseBackend) -> None:
    """Nobody begins to listen for it (on PostgreSQL, the question would leave a row, and has WITH for that)."""
    ready.store_result("t", 1, states.SUCCESS)
    with statements() as seen:
        value = AsyncResult("t", app=ready.app).get(timeout=5)

    assert (len(seen), value) == (1, 1)


@databases
def test_forget_is_one_statement(statements: Statements, ready: DatabaseBackend) -> None:
    """Whether the task is there or not."""
    ready.store_result("t", 1, states.SUCCESS)
    with statements() as seen:
        ready.forget("t")
        ready.forget("t")

    assert verbs(seen) == ["DELETE", "DELETE"]


@databases
def test_existence_is_one_statement(statements: Statements, ready: DatabaseBackend) -> None:
    """Which does not carry the result over the network."""
    ready.store_result("t", 1, states.SUCCESS)
    with statements() as seen:
        exists = ready.task_result_exists("t")

    assert (verbs(seen), exists, " result" in seen[0].partition("FROM")[0]) == (["SELECT"], True, False)


@databases
def test_groups_are_one_statement_each(statements: Statements, ready: DatabaseBackend) -> None:
    """Save, save again, restore, delete."""
    with statements() as seen:
        group(ready, "g").save()
        group(ready, "g").save()
        ready.restore_group("g", cache=False)
        ready.delete_group("g")

    assert verbs(seen) == ["INSERT", "INSERT", "SELECT", "DELETE"]


@databases
def test_a_second_backend_of_a_process_asks_for_no_version(
    statements: Statements, ready: DatabaseBackend, backends: Backends
) -> None:
    """The tables are known to be ready, and the connection is there."""
    with statements() as seen:
        backends().store_result("t", 1, states.SUCCESS)

    assert verbs(seen) == ["INSERT"]


@on("postgresql")
def test_a_task_that_is_stored_once_leaves_no_dead_row(ready: DatabaseBackend, database: Database) -> None:
    """So VACUUM has nothing to do: every row version that was ever written is alive."""
    for number in range(100):
        ready.store_result(f"t-{number}", number, states.SUCCESS)
    ready.session_manager.invalidate(ready.settings.url, **ready.engine_options)  # who leaves reports what he did
    await_departure(database)
    counted = "n_tup_ins - n_live_tup, n_tup_upd, n_tup_del, n_dead_tup"
    [found] = database.execute(f"SELECT {counted} FROM pg_stat_user_tables WHERE relname = 'celery_taskmeta'")
    versions = database.execute("SELECT count(*), count(DISTINCT xmin::text), max(xmax::text) FROM celery_taskmeta")

    assert found == (1, 0, 1, 1)  # all for the one task that `ready` has forgotten
    assert versions == [(100, 100, "0")]  # one transaction each, and nobody locked or replaced a row since
