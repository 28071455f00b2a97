"""Who looks at the server sees who is connected; what the user has said goes before."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.mariadb import MariaDB
from support import app_on, close

#: What a process that is no worker calls itself, of the app that tests make.
NAME = f"celery-sql-results {{}}@{socket.gethostname()} client"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is none of a worker, whatever other tests have begun in it."""
    monkeypatch.setattr(sys.modules["celery_sql_results.worker.who"], "_role", "client")


def named(database: Database) -> list[str]:
    """The names under which somebody is connected to a database on PostgreSQL."""
    others = "application_name <> 'servers'"
    query = f"SELECT application_name FROM pg_stat_activity WHERE datname = '{database.name}' AND {others}"
    return [name for (name,) in database.execute(query)]


def used(url: str, main: str | None = "shop", **settings: Any) -> DatabaseBackend:
    """A backend that has stored a result, so that it holds a connection."""
    app = app_on(url, **settings)
    app.main = main
    backend: DatabaseBackend = app.backend
    backend.store_result("t", 1, states.SUCCESS)
    return backend


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
@pytest.mark.parametrize(
    ("main", "expected"),
    [
        ("shop", NAME.format("shop")),
        (None, NAME.format("app")),
        ("läden\n", NAME.format("l?den?")),
        ("s" * 70, f"celery-sql-results {'s' * 37} client"),
    ],
)
def test_on_postgresql(postgresql: Database, driver: str, main: str | None, expected: str) -> None:
    """In as many bytes as it keeps, all of which everybody can read."""
    backend = used(postgresql.url.replace("psycopg", driver), main)
    found = named(postgresql)
    close(backend)

    assert found == [expected]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
@pytest.mark.parametrize("way", ["query", "argument", "environment", "options"])
def test_a_name_of_the_users_own(postgresql: Database, monkeypatch: pytest.MonkeyPatch, driver: str, way: str) -> None:
    """However it is given. pg8000 takes no options."""
    url, own = postgresql.url.replace("psycopg", driver), {"application_name": "mine"}
    arguments: dict[str, Any] = {}
    if way == "query":
        url += "?application_name=mine"
    elif way == "environment":
        monkeypatch.setenv("PGAPPNAME", "mine")
    elif way == "argument":
        arguments = own
    else:
        arguments = own if driver == "pg8000" else {"options": "-c application_name=mine"}
    backend = used(url, database_engine_options={"connect_args": arguments})
    found = named(postgresql)
    close(backend)

    assert found == ["mine"]


def test_behind_pgbouncer(pgbouncer: Database) -> None:
    """In transaction mode as well; it tells the server nothing as long as the same app is connected."""
    backend = used(pgbouncer.url)
    with pgbouncer.statements() as seen:
        backend.store_result("u", 1, states.SUCCESS)
    found = named(pgbouncer)
    close(backend)

    assert found == [NAME.format("shop")]
    assert [statement for statement in seen if "application_name" in statement] == []


@pytest.mark.parametrize("driver", ["pymysql", "mysqlconnector"])
@pytest.mark.parametrize("own", [False, True])
def test_on_mariadb(driver: str, own: bool) -> None:
    """Among the attributes of a connection, which the server keeps if it watches itself."""
    if driver == "mysqlconnector":
        pytest.importorskip("mysql.connector")
    given = {"pymysql": {"program_name": "mine"}, "mysqlconnector": {"conn_attrs": {"program_name": "mine"}}}
    query = "SELECT ATTR_VALUE FROM performance_schema.session_connect_attrs WHERE ATTR_NAME = 'program_name'"
    with MariaDB({"performance_schema": "ON"}) as server:
        server.create_database("d")
        options = {"connect_args": given[driver] if own else {}}
        backend = used(server.url("d", driver=driver), database_engine_options=options)
        found = {name for (name,) in server.execute(query)}
        close(backend)

    assert ("mine" if own else NAME.format("shop")) in found
