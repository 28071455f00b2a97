"""The servers do what their contract says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    create_engine,
    insert,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from servers import KINDS, Database, Redis, Unsupported
from servers.guard import inhabitants
from servers.pool import on, or_skip

#: The folder that `servers` is imported from.
TESTS = Path(__file__).parents[2]

ORPHAN = """
import sys; from servers import KINDS
server = KINDS[sys.argv[1]]().start(); print(server.folder, flush=True); sys.stdin.read()
"""


def run(url: str, sql: str) -> list[tuple[object, ...]]:
    """Run one statement on a connection of its own."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.execute(text(sql))
        return [tuple(row) for row in result] if result.returns_rows else []


def test_database_is_fresh_and_usable(database: Database) -> None:
    id_ = Column("id", Integer, Sequence("task_id_sequence"), primary_key=True)
    task_id = Column("task_id", String(155))
    result = Column("result", LargeBinary)
    table = Table("celery_taskmeta", MetaData(), id_, task_id, result, Column("date_done", DateTime))
    date_done = datetime(2024, 1, 2, 3, 4, 5)
    row = {"task_id": "a", "result": b"\0\xff", "date_done": date_done}
    engine = create_engine(database.url, poolclass=NullPool)
    table.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(table), row)
        assert [tuple(found) for found in connection.execute(select(table))] == [(1, *row.values())]
    assert engine.dialect.name == {"portable": "portable", "mariadb": "mysql"}.get(database.kind, database.kind)


@on("postgresql", "mariadb")
def test_statements_sees_connections_old_and_new_and_no_others(database: Database) -> None:
    engine = create_engine(database.url)
    with engine.connect() as old:
        with database.statements() as seen:
            for _ in range(8):  # psycopg prepares it meanwhile
                old.execute(text("SELECT 'old'"))
            database.execute("SELECT 'administrator'")
            run(database.url, "SELECT\n'new\t'")
        run(database.url, "SELECT 'late'")
    engine.dispose()
    ours = [statement for statement in seen if re.match(r"SELECT\s'", statement)]
    assert ours == [*["SELECT 'old'"] * 8, "SELECT\n'new\t'"]


@on("postgresql")
def test_errors_reports_and_mark_forgets(database: Database) -> None:
    assert database.errors() == []
    with pytest.raises(DBAPIError):
        run(database.url, "SELECT nothing")
    [line] = database.errors()
    assert 'ERROR:  column "nothing" does not exist' in line
    database.server.mark()
    assert database.errors() == []


@on("postgresql", "mariadb")
def test_data_survives_kill_and_restart(database: Database) -> None:
    run(database.url, "CREATE TABLE kept (a int)")
    run(database.url, "INSERT INTO kept VALUES (1)")
    database.server.kill()
    assert list(inhabitants(database.server.folder)) == []
    with pytest.raises(OperationalError):
        run(database.url, "SELECT 1")
    database.server.restart()
    assert run(database.url, "SELECT a FROM kept") == [(1,)]


@on("postgresql", "mariadb")
def test_role_without_ddl_uses_tables_but_creates_none(database: Database) -> None:
    server = database.server
    server.execute("CREATE TABLE early (a int)", database=database.name)
    server.create_role("clerk", "sec:ret", database.name, ddl=False)
    server.execute("CREATE TABLE late (a int)", database=database.name)
    server.execute("CREATE SEQUENCE numbers", database=database.name)
    url = server.url(database.name, user="clerk", password="sec:ret")
    numbers = "'numbers'" if database.kind == "postgresql" else "numbers"
    for name in ("early", "late"):
        run(url, f"INSERT INTO {name} SELECT nextval({numbers})")
        assert len(run(url, f"SELECT * FROM {name}")) == 1
    create = ["CREATE TABLE more (a int)", "CREATE TEMPORARY TABLE more (a int)"]
    for ddl in [*create, "ALTER TABLE early ADD b int", "DROP TABLE early"]:
        with pytest.raises(DBAPIError):
            run(url, ddl)
    with pytest.raises(OperationalError):
        run(server.url(database.name, user="clerk", password="wrong"), "SELECT 1")


@on("postgresql", "mariadb")
def test_role_with_ddl_creates_and_role_without_write_only_reads(database: Database) -> None:
    server = database.server
    server.create_role("clerk", "secret", database.name, ddl=True)
    server.create_role("guest", "secret", database.name, ddl=False, write=False)
    server.execute("CREATE TABLE early (a int)", database=database.name)
    run(server.url(database.name, user="clerk", password="secret"), "CREATE TABLE own (a int)")
    guest = server.url(database.name, user="guest", password="secret")
    assert run(guest, "SELECT * FROM early") == []
    with pytest.raises(DBAPIError):
        run(guest, "INSERT INTO early VALUES (1)")


def test_pgbouncer_shares_connections_between_transactions(pgbouncer: Database) -> None:
    def backend(connection: Connection) -> int:
        with connection.begin():
            return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)

    engine = create_engine(pgbouncer.url)
    with engine.connect() as one, engine.connect() as other:
        assert backend(one) == backend(other)
    engine.dispose()


def test_redis_serves_and_comes_back(redis: Redis) -> None:
    redis.kill()
    redis.restart()
    with Client.from_url(redis.url()) as client:
        client.set("a", "b")
        assert client.get("a") == b"b"
        redis.clear()
        assert client.get("a") is None


def test_sqlite_says_what_it_cannot_do(sqlite: Database) -> None:
    with pytest.raises(Unsupported, match="sqlite has no roles"):
        sqlite.server.create_role("clerk", "secret", sqlite.name, ddl=False)
    with pytest.raises(Unsupported, match="sqlite does not log statements"):
        sqlite.statements()


@pytest.mark.parametrize("kind", KINDS)
def test_stop_leaves_nothing(kind: str) -> None:
    with or_skip(kind), KINDS[kind]() as server:
        folder = server.folder
        assert folder.exists()
        assert len(list(inhabitants(folder))) > 0 or kind == "sqlite"
    assert not folder.exists()
    assert list(inhabitants(folder)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_death_of_the_parent_leaves_nothing(kind: str) -> None:
    with or_skip(kind):
        KINDS[kind]().check()
    command = [sys.executable, "-c", ORPHAN, kind]
    how: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=TESTS, **how) as parent:
        assert parent.stdout is not None
        folder = Path(parent.stdout.readline().strip())
        assert folder.name.startswith(kind)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not folder.exists()
    assert list(inhabitants(folder)) == []
