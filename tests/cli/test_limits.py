"""A question that would take long ends: the server is idle then, and the connection is as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from celery_sql_results import DatabaseBackend
from celery_sql_results.rows.queries import Asked, TooLong
from cli.run import Program
from history import fill
from servers import Database
from servers.pool import on
from support import Backends, of_session

#: A statement that would take minutes, and computes all the time.
ENDLESS: Mapping[str, str] = {
    "postgresql": "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b",
    "mariadb": "SELECT count(*) FROM information_schema.columns a, information_schema.columns b, "
    "information_schema.columns c, information_schema.columns d",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
}
#: What a connection says of itself.
ITSELF: Mapping[str, str] = {
    "postgresql": "SELECT current_setting('statement_timeout'), current_setting('transaction_read_only')",
    "mariadb": "SHOW SESSION VARIABLES WHERE Variable_name IN "
    "('max_statement_time', 'max_execution_time', 'tx_read_only', 'transaction_read_only')",
    "sqlite": "PRAGMA query_only",
}
#: Statements that the server works on, beside the one that asks.
BUSY: Mapping[str, str] = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND query LIKE '%generate_series%' "
    "AND pid <> pg_backend_pid()",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE info LIKE '%columns d' AND id <> "
    "CONNECTION_ID()",
}

limited = on("postgresql", "mariadb", "sqlite")


def asked(backend: DatabaseBackend, seconds: float = 0.2) -> Asked:
    """The database of a backend, for questions that may take so long."""
    return Asked(backend.database.engine, backend.database.impl, backend.models, {}, seconds)


def itself(backend: DatabaseBackend, kind: str) -> list[tuple[Any, ...]]:
    """What the connection that questions are asked on says of itself."""
    with backend.database.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(ITSELF[kind])]


def ends(backend: DatabaseBackend, kind: str) -> None:
    """A question ends in time, leaves nothing behind, and the next one has an answer."""
    before = itself(backend, kind)
    with pytest.raises(TooLong, match=r"within 0\.2 s: narrow it down"):
        asked(backend).all(sa.text(ENDLESS[kind]))
    assert asked(backend).all(sa.text("SELECT 1 AS one")) == [{"one": 1}]
    assert itself(backend, kind) == before
    backend.store_result("after", 1, "SUCCESS")
    assert backend.get_result("after") == 1


@limited
def test_it_ends(backend: DatabaseBackend, database: Database) -> None:
    """Also at the server, which works on it no more."""
    ends(backend, database.kind)

    if database.kind in BUSY:
        assert database.execute(BUSY[database.kind]) == [(0,)]


@limited
def test_nothing_is_written(backend: DatabaseBackend, database: Database) -> None:
    """Whatever a question says."""
    backend.store_result("t", 1, "SUCCESS")

    with pytest.raises(sa.exc.DBAPIError):
        asked(backend, 10).all(sa.text("DELETE FROM celery_taskmeta"))

    assert database.execute("SELECT task_id FROM celery_taskmeta") == [("t",)]


#: Settings of users that touch what is asked with.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "short-lived": {"database_short_lived_sessions": True},
    "an isolation level": {"database_engine_options": {"isolation_level": "READ COMMITTED"}},
    "a pool of one": {"database_engine_options": {"pool_size": 1, "max_overflow": 0}},
}


@pytest.mark.parametrize("settings", SETTINGS)
@on("postgresql", "mariadb")
def test_settings_of_users(backends: Backends, database: Database, settings: str) -> None:
    """They change nothing of it."""
    ends(backends(**SETTINGS[settings]), database.kind)


@on("postgresql")
def test_a_time_limit_of_the_users(backends: Backends, database: Database) -> None:
    """Theirs is there again when a question has ended."""
    options = of_session(database.url, statement_timeout="7s")
    backend = backends(database_engine_options=options)

    ends(backend, "postgresql")

    assert itself(backend, "postgresql")[0][0] == "7s"


def test_behind_pgbouncer(pgbouncer: Database, backends: Backends) -> None:
    """In transaction mode the next transaction has another server, which knows no limit."""
    ends(backends(url=pgbouncer.url), "postgresql")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///file:memory?mode=memory&uri=true"])
@on("sqlite")
def test_a_database_in_memory(backends: Backends, url: str) -> None:
    """All threads share its connection, which can write again."""
    ends(backends(url=url), "sqlite")


@on("sqlite")
def test_a_file_that_is_only_read(backends: Backends, database: Database) -> None:
    """Its connection goes on reading only."""
    backends().store_result("t", 1, "SUCCESS")
    path = database.url.removeprefix("sqlite:///")
    backend = backends(url=f"sqlite:///file:{path}?mode=ro&uri=true", database_create_tables_at_setup=False)

    with pytest.raises(TooLong):
        asked(backend).all(sa.text(ENDLESS["sqlite"]))

    assert backend.get_result("t") == 1


@limited
def test_a_command_says_what_to_do(results: Program, backend: DatabaseBackend) -> None:
    """One line, and the exit code of a refusal."""
    fill(backend.database.engine, backend.models, 100_000)

    ended = results.here("list", "--task", "nobody*has*this", "--time-limit", "0.01")

    assert (ended.code, ended.out) == (2, b"")
    assert ended.told == (
        "Error: the database did not answer within 0.01 s: narrow it down (--since, --until, --state, --task …), or "
        "raise --time-limit\n"
    )
