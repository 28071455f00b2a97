"""On PostgreSQL with psycopg 3, what runs again on a connection is prepared; nobody can tell but by the time."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from celery import states, uuid
from celery.exceptions import BackendStoreError
from kombu.utils.encoding import bytes_to_str

from celery_sql_results import DatabaseBackend
from celery_sql_results.dialects import impl_for
from servers import Database
from servers.pool import on
from support import Backends, app_on, close, request

#: More runs than psycopg needs until it prepares a statement; more than one connection would hide what one has.
OFTEN = 8
ONE = {"pool_size": 1, "max_overflow": 0}
NAMES = sa.text("SELECT statement FROM pg_prepared_statements WHERE name LIKE 'celery_sql_results%' ORDER BY 1")

pytestmark = [
    on("postgresql"),
    pytest.mark.drivers("psycopg"),
    pytest.mark.skipif(os.environ.get("WITHOUT_QUICK_PATH") == "1", reason="only the quick path prepares"),
]


def use(backend: DatabaseBackend, value: object = 1, **more: Any) -> list[object]:
    """Store and read often, each time another task, and return what was read."""
    return [meta["result"] for meta in metas(backend, value, **more)]


def metas(backend: DatabaseBackend, value: object, **more: Any) -> list[dict[str, Any]]:
    """What Celery reads of each."""
    found = []
    for _ in range(OFTEN):
        task_id = uuid()
        if "request" in more:
            more["request"].id = task_id
        backend.store_result(task_id, value, states.SUCCESS, **more)
        found.append(backend.get_task_meta(task_id, cache=False))
    return found


def prepared(backend: DatabaseBackend) -> list[str]:
    """How the statements begin that are prepared on the one connection."""
    with backend.database.engine.connect() as connection:
        return [bytes_to_str(text).split()[0] for (text,) in connection.execute(NAMES)]


@pytest.fixture
def one(database: Database, backends: Backends) -> DatabaseBackend:
    """A backend with one connection."""
    return backends(database_engine_options=ONE)


def test_what_runs_often_is_prepared_once(one: DatabaseBackend) -> None:
    use(one)
    use(one)
    assert prepared(one) == ["INSERT", "SELECT"]


@pytest.mark.parametrize(("threshold", "expected"), [(None, []), (0, ["INSERT", "SELECT"]), (OFTEN, [])])
def test_as_psycopg_is_told(backends: Backends, threshold: int | None, expected: list[str]) -> None:
    backend = backends(database_engine_options={**ONE, "connect_args": {"prepare_threshold": threshold}})
    use(backend)
    assert prepared(backend) == expected


def few(engine: sa.Engine) -> None:
    """Let each connection prepare ten statements at most."""
    sa.event.listen(engine, "connect", lambda connection, _: setattr(connection, "prepared_max", 10))


def test_of_many_tables_only_the_last_statements_stay_prepared(backends: Backends) -> None:
    """What was prepared before is forgotten by the server, and runs again all the same."""
    settings = {"database_engine_options": ONE, "database_engine_callback": few}
    made = [
        backends(database_table_names={"task": f"task_{number}", "group": f"g_{number}"}, **settings)
        for number in range(9)
    ]
    found = [use(backend, number) for _ in range(2) for number, backend in enumerate(made)]

    assert found == [[number] * OFTEN for _ in range(2) for number in range(9)]
    assert 2 <= len(prepared(made[0])) <= 10


def test_what_ran_ends_with_its_tables(database: Database, one: DatabaseBackend) -> None:
    """Though the engine goes on."""
    use(one)
    database.execute("CREATE TABLE strange (LIKE celery_taskmeta INCLUDING ALL)")
    columns = (sa.Column("id", sa.Integer), sa.Column("task_id", sa.String), sa.Column("status", sa.String))
    table = sa.Table("strange", sa.MetaData(), *columns)
    for number in range(OFTEN):
        with impl_for("postgresql").connect_quickly(one.database.engine) as connection:
            insert = sa.insert(table).values({name: sa.bindparam(name) for name in ("id", "task_id", "status")})
            connection.execute(insert, {"id": number, "task_id": str(number), "status": "x"})
    watch = weakref.ref(table)
    del table, insert, connection, columns
    gc.collect()

    assert watch() is None
    assert use(one) == [1] * OFTEN


@pytest.mark.parametrize("value", [None, 1.5, "ein Ü und 😀", "\x00 \ud800", {"a": [1, None]}, "x" * 100_000])
def test_what_is_read_is_what_was_read_before(one: DatabaseBackend, value: object) -> None:
    found = use(one, value, traceback="\x00 Ü", request=request())
    assert found == [value] * OFTEN


def test_all_columns_are_what_they_were_before(backends: Backends) -> None:
    backend = backends(database_engine_options=ONE, result_extended=True)
    first, *_, last = metas(backend, 1, traceback="Ü", request=request(retries=2**31 - 1))
    assert {name for name in first if first[name] != last[name]} == {"task_id", "date_done"}
    assert [type(value) for value in first.values()] == [type(value) for value in last.values()]


def alter(backend: DatabaseBackend) -> None:
    """What is prepared does not fit any more."""
    with backend.database.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE celery_taskmeta ALTER status TYPE varchar(60), ALTER worker TYPE text")


def deallocate(backend: DatabaseBackend) -> None:
    """As a pooler in between does."""
    with backend.database.engine.connect() as connection:
        connection.exec_driver_sql("DEALLOCATE ALL")


def refuse_at_commit(backend: DatabaseBackend) -> None:
    """The statement works, but not its commit."""
    with backend.database.engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE serialization_failure; END $$"
        )
        connection.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON celery_taskmeta DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION refuse()"
        )


def disconnect(backend: DatabaseBackend) -> None:
    """The server forgets the connection and all that is on it."""
    with backend.database.engine.connect() as connection:
        number = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    other = app_on(backend.settings.url).backend
    with other.database.engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_terminate_backend({number}, 5000)")
    close(other)


@pytest.mark.parametrize("happens", [alter, deallocate, disconnect])
def test_what_is_not_prepared_any_more(one: DatabaseBackend, happens: Callable[[DatabaseBackend], None]) -> None:
    """It runs all the same, on that connection unprepared: whatever happened may happen again."""
    use(one)
    happens(one)
    assert use(one, 2) == [2] * OFTEN


def test_an_error_of_the_server_is_told(one: DatabaseBackend) -> None:
    """As one that a cursor has met."""
    use(one)
    with one.database.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE celery_taskmeta ADD CHECK (task_id <> 'bad')")
    with pytest.raises(sa.exc.IntegrityError) as told:
        one.store_result("bad", 1, states.SUCCESS)
    assert (told.value.orig.sqlstate, told.value.connection_invalidated) == ("23514", False)  # type: ignore[union-attr]
    assert use(one, 2) == [2] * OFTEN


@pytest.mark.parametrize("often", [False, True])
def test_a_commit_that_fails(backends: Backends, often: bool) -> None:
    """Its error comes after the result of the statement."""
    backend = backends(database_engine_options=ONE, result_backend_max_retries=1)
    if often:
        use(backend)
    refuse_at_commit(backend)
    with pytest.raises(BackendStoreError):
        backend.store_result("t", 1, states.SUCCESS)
    assert backend.get_state("t") == states.PENDING


def test_another_cursor_is_used(backends: Backends) -> None:
    """Such as one that sends no parameters, or one that traces."""
    options = {**ONE, "connect_args": {"cursor_factory": psycopg.ClientCursor}}
    backend = backends(database_engine_options=options)
    assert use(backend) == [1] * OFTEN
    assert prepared(backend) == []


def test_a_busy_server(database: Database, backends: Backends) -> None:
    """An error that passes, though not in time."""
    options = {**ONE, "connect_args": {"options": "-c lock_timeout=100ms"}}
    backend = backends(database_engine_options=options, result_backend_max_retries=1)
    use(backend)
    other = app_on(database.url).backend
    with other.database.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        connection.exec_driver_sql("LOCK celery_taskmeta")
        with pytest.raises(BackendStoreError):
            backend.store_result("t", 1, states.SUCCESS)
    close(other)
    assert use(backend, 2) == [2] * OFTEN


def test_another_encoding(backends: Backends) -> None:
    options = {**ONE, "connect_args": {"client_encoding": "latin1"}}
    backend = backends(database_engine_options=options, result_extended=True)
    found = metas(backend, "Ü", traceback="Ü", request=request(task="Ü", kwargs={}))
    assert {(meta["result"], meta["traceback"], meta["name"]) for meta in found} == {("Ü", "Ü", "Ü")}
