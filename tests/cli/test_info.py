"""What to put into a bug report: all that matters, and no secret, whatever is wrong."""

from __future__ import annotations

from typing import Any

import celery
import pytest
import sqlalchemy

from celery_sql_results import DatabaseBackend
from cli.run import Program
from cli.setting_up import HEAD, old_tables
from servers import Database
from servers.pool import on

SECRET = "s3cr3t"


def told(program: Program) -> dict[str, Any]:
    """What info says, for programs."""
    [found] = program("info", "--json").json
    assert isinstance(found, dict)
    return found


def test_what_is_told(program: Program, database: Database, backend: DatabaseBackend) -> None:
    """Versions, the server, the tables; in a pipe the same as for people."""
    assert backend.get_state("t") == "PENDING"
    ended, found = program("info"), told(program)

    assert (ended.code, ended.told) == (0, "")
    assert found["versions"]["celery"] == celery.__version__
    assert found["versions"]["SQLAlchemy"] == sqlalchemy.__version__
    assert found["tables"]["version"] == f"{HEAD} (this release: {HEAD})"
    assert f"server: {found['database']['server']}" in ended.text


@on("postgresql", "mariadb", "sqlite")
def test_settings_that_are_set(database: Database, results: Program) -> None:
    """Those alone; no secret in any."""
    settings = {
        "result_expires": 60,
        "task_ignore_result": True,
        "database_chord_secrets": [SECRET],
        "database_table_names": {"task": "outcomes"},
        "database_engine_options": {"pool_size": 3, "connect_args": {"application_name": SECRET, "password": SECRET}},
        "database_listen_url": f"postgresql+psycopg://me:{SECRET}@nowhere/db?password={SECRET}",
        "database_redact": ["number"],
    }
    program = results.but(settings=settings)
    found = told(program)["settings"]

    assert {name: found[name] for name in found if name not in ("result_backend", "database_listen_url")} == {
        "database_chord_secrets": "(not shown)",
        "database_engine_options": {
            "pool_size": 3,
            "connect_args": {"application_name": "(not shown)", "password": "(not shown)"},
        },
        "database_redact": ["number"],
        "database_table_names": {"task": "outcomes"},
        "result_expires": 60,
    }
    assert found["database_listen_url"] == "postgresql+psycopg://me:***@nowhere/db"
    assert SECRET not in program("info").text


@on("postgresql")
def test_a_database_that_is_away(database: Database, results: Program) -> None:
    """A line says so, and everything else is there."""
    program = results.but(url=f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/db")
    ended, found = program("info"), told(program)

    assert (ended.code, "Connection refused" in found["database"]["away"]) == (0, True)
    assert found["database"]["url"] == "sql+postgresql+psycopg://me:***@127.0.0.1:1/db"
    assert SECRET not in ended.text + ended.told


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://me:a@{SECRET}/x@nowhere/db",
        f"postgresql+psycopg://me:{SECRET}@nowhere:port/db",
        f"postgresql://me:{SECRET}",
        f"no-such-database://me:{SECRET}@nowhere/db",
        f"mysql+aiomysql://me:{SECRET}@nowhere/db",
        f"{SECRET}",
    ],
)
@pytest.mark.parametrize("name", ["celery", "celery-sql-results"])
def test_a_broken_url(name: str, url: str) -> None:
    """It is told of, and not shown."""
    ended = Program(name, url)("info")

    assert ended.code == 0
    assert "unusable: " in ended.text or "away: " in ended.text
    assert SECRET not in ended.text + ended.told


def test_another_backend() -> None:
    """The app has one of another kind: nothing but its kind is shown."""
    ended = Program("celery", "", {"result_backend": f"redis://:{SECRET}@nowhere/0"})("info")

    assert (ended.code, "result_backend: redis://…" in ended.text) == (0, True)
    assert SECRET not in ended.text + ended.told


@on("postgresql", "mariadb", "sqlite")
def test_old_tables(database: Database, results: Program) -> None:
    """What they lack is told."""
    old_tables(database, "5.4.0")
    found = told(results)["tables"]

    assert found["version"] == f"none (this release: {HEAD})"
    assert "lacks " in found["celery_taskmeta"]
    assert found["celery_taskmeta_chords"] == "missing"
