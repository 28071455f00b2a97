"""Cleanup where the server ends each statement that takes long."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import needs, on
from support import Backends, of_session

#: How each database makes a table of numbers up to its argument.
NUMBERS = {
    "postgresql": "SELECT n FROM generate_series(1, {0}) AS numbers (n)",
    "mariadb": "SELECT seq AS n FROM seq_1_to_{0}",
}
OLD = "'2001-01-01'"


def limited(database: Database, backends: Backends) -> DatabaseBackend:
    """A backend whose statements may take 50 ms. What fails is not tried again: batches must have fitted."""
    needs(database, "a time limit")
    backends()
    options: dict[str, Any] = {"connect_args": {"init_command": "SET max_statement_time = 0.05"}}
    if database.kind == "postgresql":
        options = of_session(database.url, statement_timeout="50ms")
    return backends(database_engine_options=options, result_backend_max_retries=0)


def make_slow(database: Database, table: str, milliseconds: float) -> None:
    """Let each row that is deleted take its time."""
    if database.kind == "postgresql":
        sleep = f"BEGIN PERFORM pg_sleep({milliseconds / 1000}); RETURN OLD; END"
        database.execute(f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ {sleep} $$")
        database.execute(f"CREATE TRIGGER slow BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION slow()")
    else:
        sleep = f"DO SLEEP({milliseconds / 1000})"
        database.execute(f"CREATE TRIGGER slow BEFORE DELETE ON {table} FOR EACH ROW {sleep}")


def count(database: Database, table: str) -> int:
    """How many rows there are."""
    ((rows,),) = database.execute(f"SELECT COUNT(*) FROM {table}")
    return int(rows)


@on("postgresql", "mariadb")
def test_many_results(database: Database, backends: Backends) -> None:
    """More than can be deleted in time in batches of the usual size."""
    backend, numbers = limited(database, backends), NUMBERS[database.kind].format(200_001)
    database.execute(
        "INSERT INTO celery_taskmeta (id, task_id, status, date_done) "
        f"SELECT n, CONCAT('task-', n), 'SUCCESS', {OLD} FROM ({numbers}) AS n"
    )
    backend.cleanup()

    assert count(database, "celery_taskmeta") == 0


def planned_too_slowly(engine: sa.Engine) -> None:
    """An engine callback: the first DELETE finds nothing, as where MariaDB's time limit strikes while it is planned."""
    left = ["celery_taskmeta "]

    def rewrite(_c: object, _d: object, text: str, parameters: Any, _e: object, _m: bool) -> tuple[str, Any]:
        if left and text.startswith(f"DELETE FROM {left[0]}"):
            left.pop()
            text = text.partition(" LIMIT ")[0] + " LIMIT 0"
        return text, parameters

    sa.event.listen(engine, "before_cursor_execute", rewrite, retval=True)


@on("mariadb")
def test_a_server_that_ends_a_statement_without_a_word(database: Database, backends: Backends) -> None:
    backend = backends(database_engine_callback=planned_too_slowly)
    database.execute(f"INSERT INTO celery_taskmeta (id, task_id, date_done) VALUES (1, 't', {OLD})")
    backend.cleanup()

    assert count(database, "celery_taskmeta") == 0


@on("postgresql", "mariadb")
def test_slow_rows(database: Database, backends: Backends) -> None:
    """Fewer and fewer at once, until it fits."""
    backend, numbers = limited(database, backends), NUMBERS[database.kind].format(200)
    make_slow(database, "celery_tasksetmeta", 1)
    database.execute(
        "INSERT INTO celery_tasksetmeta (id, taskset_id, date_done) "
        f"SELECT n, CONCAT('group-', n), {OLD} FROM ({numbers}) AS n"
    )
    backend.cleanup()

    assert count(database, "celery_tasksetmeta") == 0


@on("postgresql", "mariadb")
def test_a_chord_of_many_parts(database: Database, backends: Backends) -> None:
    """One chord is more than can be deleted in time."""
    backend, numbers = limited(database, backends), NUMBERS[database.kind].format(200)
    make_slow(database, "celery_taskmeta_parts", 1)
    database.execute(f"INSERT INTO celery_taskmeta_chords (group_id, size, date_created) VALUES ('g', 999, {OLD})")
    database.execute(
        "INSERT INTO celery_taskmeta_parts (group_id, task_id, position, status) "
        f"SELECT 'g', CONCAT('task-', n), n, 'SUCCESS' FROM ({numbers}) AS n"
    )
    backend.cleanup()

    assert [count(database, f"celery_taskmeta_{table}") for table in ("chords", "parts")] == [0, 0]


@on("postgresql", "mariadb")
def test_rows_that_are_too_slow(database: Database, backends: Backends) -> None:
    """Not even ten in time: then the error of the server is raised, at once."""
    backend, numbers = limited(database, backends), NUMBERS[database.kind].format(20)
    make_slow(database, "celery_taskmeta", 20)
    database.execute(
        "INSERT INTO celery_taskmeta (id, task_id, status, date_done) "
        f"SELECT n, CONCAT('task-', n), 'SUCCESS', {OLD} FROM ({numbers}) AS n"
    )
    with pytest.raises(sa.exc.DBAPIError, match="statement"):
        backend.cleanup()

    assert count(database, "celery_taskmeta") == 20
