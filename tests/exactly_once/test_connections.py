"""What a task may hand over: sessions and connections of SQLAlchemy, Django and drivers."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Task, states
from sqlalchemy.orm import scoped_session, sessionmaker

from celery_sql_results import CannotComplete, NotCommitted, complete
from exactly_once.conftest import Stages
from exactly_once.stage import Stage
from servers import Database
from servers.pool import on

DRIVERS = {"postgresql": ("psycopg", "psycopg2"), "mariadb": ("pymysql", "MySQLdb", "mysql.connector")}
CASES = [(kind, driver) for kind, drivers in DRIVERS.items() for driver in drivers] + [("sqlite", "sqlite3")]


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    """The name of a driver; two of them need a compiler to be installed, and may be missing."""
    pytest.importorskip(request.param)
    return str(request.param)


def connected(database: Database, driver: str) -> Any:
    """A connection of a driver, as its own documentation makes one."""
    url = sa.make_url(database.url)
    if driver == "sqlite3":
        return sqlite3.connect(str(url.database))
    name = "dbname" if driver.startswith("psycopg") else "database"
    known = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, name: url.database}
    more = {"collation": "utf8mb4_general_ci"} if driver == "mysql.connector" else {}
    return import_module(driver).connect(**{key: value for key, value in known.items() if value is not None}, **more)


def run(stage: Stage, connection: Any, ends: Callable[[], Any]) -> str:
    """Complete a task on a connection of a driver, and end the transaction somehow."""

    def body(task: Task) -> Any:
        with closing(connection.cursor()) as cursor:
            cursor.execute(f"INSERT INTO effects VALUES ('{task.request.id}')")
        complete(connection, {"paid": "1 €", "%": "%(x)s"})
        ends()
        return {"paid": "1 €", "%": "%(x)s"}

    return stage.traced(body)


@pytest.mark.parametrize(("database", "driver"), CASES, indirect=True)
@pytest.mark.parametrize(
    "settings", [{}, {"result_extended": True, "result_compression": "gzip"}], ids=["", "extended"]
)
def test_a_connection_of_a_driver(stages: Stages, driver: str, settings: Any) -> None:
    stage = stages(**settings)
    with closing(connected(stage.database, driver)) as connection:
        done = run(stage, connection, connection.commit)
        undone = run(stage, connection, connection.rollback)
    with stage.engine.connect() as other:
        stored = other.execute(sa.select(stage.backend.models.task.c["status", "worker", "date_done"])).all()
    assert (stage.state(done), stage.effects(done)) == ((states.SUCCESS, {"paid": "1 €", "%": "%(x)s"}), 1)
    assert (stage.state(undone)[0], type(stage.state(undone)[1])) == (states.FAILURE, NotCommitted)
    assert stage.effects(undone) == 0
    assert [row[2] is not None for row in stored] == [True, True]


@pytest.mark.parametrize(("database", "driver"), CASES, indirect=True)
def test_a_second_copy_on_a_connection_of_a_driver(stage: Stage, driver: str) -> None:
    """Drivers count rows in two ways: those that were found, or those that were changed."""

    def body(task: Task) -> Any:
        with closing(connected(stage.database, driver)) as connection:
            with closing(connection.cursor()) as cursor:
                cursor.execute("INSERT INTO effects VALUES ('twice')")
            complete(connection, "paid")
            connection.commit()
        return "paid"

    for _ in range(2):
        stage.traced(body, "twice")
    assert (stage.state("twice"), stage.effects("twice")) == ((states.SUCCESS, "paid"), 1)


@pytest.mark.parametrize(("database", "driver"), CASES, indirect=True)
def test_a_connection_of_a_driver_in_autocommit(stage: Stage, driver: str) -> None:
    connection = connected(stage.database, driver)
    if driver == "sqlite3":
        connection.isolation_level = None
    elif driver in ("psycopg", "psycopg2", "mysql.connector"):
        connection.autocommit = True
    else:
        connection.autocommit(True)
    task_id = stage.traced(lambda task: complete(connection, 1))
    connection.close()
    state, error = stage.state(task_id)
    assert (state, type(error)) == (states.FAILURE, CannotComplete)
    assert "in autocommit" in str(error)


@on("postgresql")
def test_a_transaction_of_psycopg_on_a_connection_in_autocommit(stage: Stage) -> None:
    import psycopg

    def body(task: Task) -> Any:
        with closing(connected(stage.database, "psycopg")) as connection:
            connection.autocommit = True
            connection.row_factory = psycopg.rows.dict_row
            with connection.transaction():
                connection.execute("INSERT INTO effects VALUES (%s)", [task.request.id])
                return complete(connection, "paid")

    task_id = stage.traced(body)
    assert (stage.state(task_id), stage.effects(task_id)) == ((states.SUCCESS, "paid"), 1)


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize("drops", [True, False])
def test_a_connection_that_was_left_open(stage: Stage, drops: bool) -> None:
    """It is dropped with the task, or somebody keeps it: neither is waited for."""
    kept: list[Any] = []

    def body(task: Task) -> Any:
        connection = connected(stage.database, {"postgresql": "psycopg2", "mariadb": "pymysql"}.get(kind, "sqlite3"))
        with closing(connection.cursor()) as cursor:
            cursor.execute(f"INSERT INTO effects VALUES ('{task.request.id}')")
        complete(connection, "paid")
        kept.append(None if drops else connection)
        return "paid"

    kind = stage.database.kind
    task_id = stage.traced(body)
    state, error = stage.state(task_id)
    assert (state, type(error), stage.effects(task_id)) == (states.FAILURE, NotCommitted, 0)
    for connection in filter(None, kept):
        connection.close()


def test_a_scoped_session(stage: Stage) -> None:
    sessions = scoped_session(sessionmaker(stage.engine))

    def body(task: Task) -> Any:
        sessions.execute(sa.text("INSERT INTO effects VALUES (:id)"), {"id": task.request.id})
        complete(sessions, "paid")
        sessions.commit()
        return "paid"

    task_id = stage.traced(body)
    sessions.remove()
    assert (stage.state(task_id), stage.effects(task_id)) == ((states.SUCCESS, "paid"), 1)


@on("postgresql")
def test_a_schema_that_the_session_translates(stage: Stage) -> None:
    """The task's tables are in another schema than ours."""
    stage.database.execute("CREATE SCHEMA tenant")
    stage.database.execute("CREATE TABLE tenant.effects (task_id text)")
    tenant = stage.engine.execution_options(schema_translate_map={None: "tenant"})

    def body(task: Task) -> Any:
        with tenant.begin() as connection:
            return complete(connection, "paid")

    assert stage.state(stage.traced(body)) == (states.SUCCESS, "paid")


@on("postgresql")
def test_a_search_path_that_leads_to_another_table(stage: Stage) -> None:
    stage.database.execute("CREATE SCHEMA tenant")

    def body(task: Task) -> Any:
        with stage.engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL search_path = tenant")
            return complete(connection, "paid")

    state, error = stage.state(stage.traced(body))
    assert (state, type(error)) == (states.FAILURE, CannotComplete)
    assert "finds no celery_taskmeta there" in str(error)


@on("postgresql")
def test_another_driver_than_that_of_the_results(stage: Stage) -> None:
    other = sa.create_engine(stage.database.url.replace("+psycopg:", "+psycopg2:"))

    def body(task: Task) -> Any:
        with other.begin() as connection:
            return complete(connection, "paid")

    assert stage.state(stage.traced(body)) == (states.SUCCESS, "paid")
    other.dispose()


def test_an_async_connection(stage: Stage) -> None:
    class Async:
        async def commit(self) -> None: ...

    state, error = stage.state(stage.traced(lambda task: complete(Async(), 1)))
    assert (state, type(error)) == (states.FAILURE, CannotComplete)
    assert str(error).endswith("or one of a driver, that is not async")


@on("postgresql", "mariadb", "sqlite")
def test_a_connection_of_django(database: Database) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    command = [sys.executable, "-m", "exactly_once.of_django", database.url]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("in_atomic") == [states.SUCCESS, "paid", 1]
    assert found["rolled_back"][::2] == [states.FAILURE, 0]
    assert "its transaction was rolled back" in found["rolled_back"][1]
    assert found["in_no_transaction"][::2] == [states.FAILURE, 0]
    assert "`with transaction.atomic(using='default')`" in found["in_no_transaction"][1]
