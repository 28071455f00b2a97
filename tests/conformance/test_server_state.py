"""Times are UTC and a commit is a commit, whatever the server, its roles or the user's listeners say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import states
from sqlalchemy import Engine, event

from celery_sql_results import DatabaseBackend, Task, session_cleanup
from servers import Database
from servers.pool import on
from support import Backends, request

#: How far the clock may have gone on while a test ran.
CLOSE = timedelta(minutes=5)


def on_connect(*commands: str) -> Callable[[Engine], None]:
    """An engine callback of a user who changes each new connection."""

    def run(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for command in commands:
            cursor.execute(command)
        cursor.close()

    return lambda engine: event.listen(engine, "connect", run)


def with_a_zone(database: Database) -> None:
    """Somebody else has made the columns of times, with a time zone."""
    if database.kind == "mariadb":
        database.execute("ALTER TABLE celery_taskmeta MODIFY date_done TIMESTAMP(6) NULL")
    else:
        database.execute(
            "ALTER TABLE celery_taskmeta ALTER date_done TYPE timestamptz USING date_done AT TIME ZONE 'UTC'"
        )


def age(database: Database, task_id: str) -> timedelta:
    """How long ago a task was done, as the server sees it, which knows what the column means."""
    question = {
        "mariadb": "SELECT UNIX_TIMESTAMP() - UNIX_TIMESTAMP(date_done) FROM celery_taskmeta WHERE task_id = '{}'",
    }.get(database.kind, "SELECT extract(epoch FROM now() - date_done) FROM celery_taskmeta WHERE task_id = '{}'")
    ((seconds,),) = database.execute(question.format(task_id))
    return timedelta(seconds=float(seconds))


def check_times(database: Database, backend: DatabaseBackend) -> None:
    """Of what is stored, read and cleaned up."""
    backend.store_result("new", 1, states.SUCCESS)
    read = backend.get_task_meta("new", cache=False)["date_done"]
    assert age(database, "new") < CLOSE
    assert abs(datetime.now(timezone.utc).replace(tzinfo=None) - datetime.fromisoformat(str(read))) < CLOSE
    backend.cleanup()
    assert backend.get_state("new") == states.SUCCESS
    database.execute("UPDATE celery_taskmeta SET date_done = date_done - INTERVAL '2' HOUR")
    backend.cleanup()
    assert backend.get_task_meta("new", cache=False)["status"] == states.PENDING


@pytest.mark.parametrize(
    ("database", "driver", "command"),
    [
        ("postgresql", "psycopg", "SET TIME ZONE 'Asia/Shanghai'"),
        ("postgresql", "psycopg2", "SET TIME ZONE 'America/Sao_Paulo'"),
        ("postgresql", "pg8000", "SET TIME ZONE 'Asia/Shanghai'"),
        ("mariadb", "pymysql", "SET time_zone = '+08:00'"),
    ],
    indirect=["database"],
)
def test_the_zone_of_a_user(database: Database, backends: Backends, driver: str, command: str) -> None:
    """Who sets one as he connects: it does not hold for what we write and read."""
    pytest.importorskip(driver)
    backends().store_result("old", 1, states.SUCCESS)
    with_a_zone(database)
    url = database.server.url(database.name, driver=driver)
    check_times(database, backends(url=url, database_engine_callback=on_connect(command), result_expires=3600))


@on("postgresql")
@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/St_Johns", "UTC"])
def test_the_zone_of_a_database(database: Database, backends: Backends, zone: str) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET TimeZone = '{zone}'")
    backends().store_result("old", 1, states.SUCCESS)
    with_a_zone(database)
    check_times(database, backends(result_expires=3600, database_engine_options={"pool_size": 1}))


@on("postgresql")
def test_behind_pgbouncer(database: Database, backends: Backends, pgbouncer: Database) -> None:
    """In transaction mode it tells the zones of its clients apart."""
    server = pgbouncer.execute
    server(f"ALTER DATABASE {pgbouncer.name} SET TimeZone = 'Asia/Shanghai'")
    backend = backends(url=pgbouncer.url, result_expires=3600, database_engine_options={"pool_size": 1})
    backend.store_result("old", 1, states.SUCCESS)
    with_a_zone(pgbouncer)
    check_times(pgbouncer, backend)


def stored(database: Database) -> set[str]:
    """The tasks whose results everybody sees."""
    return {task_id for (task_id,) in database.execute("SELECT task_id FROM celery_taskmeta")}


@on("mariadb")
@pytest.mark.parametrize("completion", ["CHAIN", "RELEASE"])
def test_a_commit_is_a_commit(database: Database, backends: Backends, completion: str) -> None:
    """It neither begins a transaction, in which all that follows would be lost, nor ends the connection."""
    backend = backends(
        database_engine_callback=on_connect(f"SET completion_type = '{completion}'"),
        database_engine_options={"pool_size": 1, "max_overflow": 0},
        result_backend_max_retries=0,
    )
    part = request("part", chord={"task": "x"}, group_index=0)
    backend.mark_as_done("part", 1, request=part)
    backend.store_result("after", 1, states.SUCCESS)
    assert stored(database) == {"part", "after"}
    session = backend.ResultSession()
    with session_cleanup(session):
        session.add(Task("session"))
        session.commit()
    backend.store_result("last", 1, states.SUCCESS)

    assert stored(database) == {"part", "after", "session", "last"}


@on("postgresql")
@pytest.mark.parametrize(
    "settings",
    [
        ("default_transaction_isolation = 'serializable'", "default_transaction_deferrable = on"),
        ("default_transaction_isolation = 'repeatable read'",),
        ("standard_conforming_strings = on", "DateStyle = 'German'", "IntervalStyle = 'iso_8601'"),
        ("bytea_output = 'escape'", "client_encoding = 'LATIN1'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_settings_of_a_database(database: Database, backends: Backends, settings: tuple[str, ...], driver: str) -> None:
    pytest.importorskip(driver)
    for setting in settings:
        database.execute(f"ALTER DATABASE {database.name} SET {setting}")
    backend = backends(url=database.server.url(database.name, driver=driver), result_expires=3600)
    backend.mark_as_done("part", "é", request=request("part", chord={"task": "x"}, group_index=0))
    check_times(database, backend)
    backend.store_result("t", "é", states.SUCCESS)

    assert database.execute("SELECT task_id, status FROM celery_taskmeta") == [("t", "SUCCESS")]
    assert backend.get_result("t") == "é"
