"""The sequence of the ids is behind those in the tables: each result is stored, and no row gets another's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult
from sqlalchemy import Engine, event

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from chords.actors import open_chord, part
from servers import Database
from servers.pool import needs, on
from support import Backends, Statements

SEQUENCES = ("task_id_sequence", "taskset_id_sequence")
#: Some rows as others have left them, from the first id on.
ROWS = {
    "postgresql": "INSERT INTO celery_taskmeta (id, task_id, status) "
    "SELECT n, 'old-' || n, 'SUCCESS' FROM generate_series(1, {}) AS s (n)",
    "mariadb": "INSERT INTO celery_taskmeta (id, task_id, status) "
    "SELECT seq, CONCAT('old-', seq), 'SUCCESS' FROM seq_1_to_{}",
}


def set_back(database: Database) -> None:
    """Let the sequences begin anew, as after a restore that has left them out."""
    if database.kind == "sqlite":
        database.execute("DELETE FROM sqlite_sequence")
        return
    if "sequences" in database.server.lacks:
        for table in ("celery_taskmeta", "celery_tasksetmeta"):
            database.execute(f"ALTER TABLE {table} AUTO_INCREMENT = 1")
        return
    step = " INCREMENT BY 0" if "sequences as Celery makes them" in database.server.lacks else ""
    for sequence in SEQUENCES:
        database.execute(f"ALTER SEQUENCE {sequence}{step} RESTART WITH 1")


def tasks(database: Database) -> dict[str, str]:
    """The states that are stored."""
    return dict(database.execute("SELECT task_id, status FROM celery_taskmeta"))  # type: ignore[arg-type]


def save(backend: DatabaseBackend, group_id: str) -> None:
    """Save a group of one task."""
    GroupResult(group_id, [AsyncResult(f"member-{group_id}", app=backend.app)], app=backend.app).save(backend=backend)


def members(backend: DatabaseBackend, group_id: str) -> list[str]:
    """The members of a group that was saved."""
    found: Any = GroupResult.restore(group_id, backend=backend, app=backend.app)
    return [each.id for each in found.results]


def test_tasks(database: Database, backends: Backends) -> None:
    backend = backends(result_backend_max_retries=0)
    for number in range(5):
        backend.store_result(f"before-{number}", number, states.SUCCESS)
    set_back(database)
    for number in range(5):
        backend.store_result(f"after-{number}", number, states.STARTED)
        backend.store_result(f"after-{number}", number, states.SUCCESS)
    backend.store_result("before-0", "late", states.FAILURE)

    stored = {f"{when}-{number}": number for when in ("before", "after") for number in range(5)}
    assert {task_id: backend.get_result(task_id) for task_id in stored} == stored
    assert tasks(database) == dict.fromkeys(stored, states.SUCCESS)


def test_groups(database: Database, backends: Backends) -> None:
    backend = backends(result_backend_max_retries=0)
    save(backend, "before")
    set_back(database)
    save(backend, "after")
    save(backend, "before")

    assert [members(backend, group_id) for group_id in ("before", "after")] == [["member-before"], ["member-after"]]


def test_parts_of_chords(database: Database, backends: Backends) -> None:
    """A part is stored in one commit with its result, once."""
    backend = backends(result_backend_max_retries=0)
    backend.store_result("before", 1, states.SUCCESS)
    rows = backend.database.rows
    assert rows.chords is not None
    open_chord(rows.chords, "g", None)
    set_back(database)
    row = {"task_id": "part", "status": states.SUCCESS, "result": b"2", "date_done": utc_now()}
    rows.tasks.put(row, part(task_id="part"))

    assert tasks(database) == {"before": states.SUCCESS, "part": states.SUCCESS}
    assert database.execute("SELECT task_id FROM celery_taskmeta_parts") == [("part",)]
    assert backend.get_result("before") == 1


@on("postgresql")
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_result_that_is_awaited(database: Database, backends: Backends, driver: str) -> None:
    """It is announced in the same round trip where the driver can."""
    pytest.importorskip(driver)
    url = database.server.url(database.name, driver=driver)
    backend, other = (backends(url=url, result_backend_max_retries=0) for _ in range(2))
    backend.store_result("before", 1, states.SUCCESS)
    waiters = backend.database.rows.waiters
    assert waiters is not None
    waiters.await_many(["t"], "some-channel")
    set_back(database)
    other.store_result("t", 2, states.SUCCESS)

    assert [backend.get_result(task_id) for task_id in ("before", "t")] == [1, 2]


@on("postgresql", "mariadb")
def test_a_sequence_that_is_far_behind(
    database: Database, backends: Backends, statements: Statements, caplog: pytest.LogCaptureFixture
) -> None:
    """It is moved on, so that the next result is one statement again; the log says so."""
    needs(database, "sequences")
    backend = backends(result_backend_max_retries=0)
    backend.store_result("t", 1, states.SUCCESS)
    database.execute("DELETE FROM celery_taskmeta")
    database.execute(ROWS[database.kind].format(3000))
    set_back(database)
    with caplog.at_level(logging.WARNING):
        backend.store_result("first", 1, states.SUCCESS)
    with statements() as seen:
        backend.store_result("second", 2, states.SUCCESS)

    assert len([text for text in seen if "INSERT" in text]) == len(seen) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "new ids of celery_taskmeta are in use already: its sequence is behind, and is moved on"
    ]
    assert len(tasks(database)) == 3002
    assert database.execute("SELECT count(*) FROM celery_taskmeta WHERE id > 3000") == [(2,)]


@on("postgresql")
def test_a_role_that_may_only_draw(database: Database, backends: Backends) -> None:
    """The sequence is moved on by what it may do."""
    backends().store_result("t", 1, states.SUCCESS)
    database.execute("DELETE FROM celery_taskmeta")
    database.execute(ROWS[database.kind].format(100))
    set_back(database)
    database.server.create_role("drawer", "secret", database.name, ddl=False)
    database.execute("REVOKE UPDATE ON ALL SEQUENCES IN SCHEMA public FROM drawer")
    url = database.server.url(database.name, user="drawer", password="secret")
    backend = backends(url=url, result_backend_max_retries=0)
    backend.store_result("first", 1, states.SUCCESS)

    assert backend.get_result("first") == 1
    assert len(tasks(database)) == 101


def without_sequences(*commands: str) -> Callable[[Engine], None]:
    """An engine callback that makes MariaDB the server of a dialect without sequences, which is what MySQL is."""

    def listen(engine: Engine) -> None:
        def connect(connection: Any, _record: object) -> None:
            engine.dialect.supports_sequences = False
            with connection.cursor() as cursor:
                for command in commands:
                    cursor.execute(command)

        event.listen(engine, "connect", connect)

    return listen


@on("mariadb")
@pytest.mark.parametrize("mode", ["", "STRICT_ALL_TABLES,ANSI"])
def test_numbers_that_the_server_counts_itself(database: Database, backends: Backends, mode: str) -> None:
    """Also where it changes values that do not fit. The first number of a new connection is one that is taken."""
    old = backends(database_engine_callback=without_sequences())
    old.store_result("before", 1, states.SUCCESS)
    callback = without_sequences(f"SET SESSION sql_mode = '{mode}'", "SET SESSION insert_id = 1")
    backend = backends(database_engine_callback=callback, result_backend_max_retries=0)
    backend.store_result("after", 2, states.SUCCESS)

    assert [old.get_result("before"), old.get_result("after")] == [1, 2]
    assert database.execute("SELECT task_id FROM celery_taskmeta WHERE id = 1") == [("before",)]


@on("mariadb")
def test_numbers_of_groups_and_parts_that_the_server_counts_itself(database: Database, backends: Backends) -> None:
    old = backends(database_engine_callback=without_sequences())
    old.store_result("before", 1, states.SUCCESS)
    save(old, "before")
    taken = without_sequences("SET SESSION insert_id = 1")
    save(backends(database_engine_callback=taken, result_backend_max_retries=0), "after")
    open_chord(old.database.rows.chords, "g", None)
    rows = backends(database_engine_callback=taken, result_backend_max_retries=1).database.rows
    row = {"task_id": "part", "status": states.SUCCESS, "result": b"2", "date_done": utc_now()}
    rows.tasks.put(row, part(task_id="part"))

    assert [members(old, group_id) for group_id in ("before", "after")] == [["member-before"], ["member-after"]]
    assert tasks(database) == {"before": states.SUCCESS, "part": states.SUCCESS}
    assert database.execute("SELECT task_id FROM celery_taskmeta_parts") == [("part",)]


@on("postgresql", "mariadb", "sqlite")
def test_another_column_that_must_be_unique(database: Database, backends: Backends) -> None:
    """What no other id can help is an error after some attempts, and nothing is changed."""
    backend = backends(result_backend_max_retries=0)
    backend.store_result("t", 1, states.SUCCESS)
    database.execute("CREATE UNIQUE INDEX one_of_a_kind ON celery_taskmeta (content_type)")
    with pytest.raises(Exception, match=r"(?i)unique|out of range"):
        backend.store_result("u", 2, states.SUCCESS)

    assert tasks(database) == {"t": states.SUCCESS}
    assert backend.get_result("t") == 1
