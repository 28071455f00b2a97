"""What a backend makes of the tables that it finds: versions of other releases, and tables that are missing."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa
from celery import states
from celery.result import AsyncResult, GroupResult

from celery_sql_results import DatabaseBackend, SchemaError, SettingError
from celery_sql_results.models import models_for
from celery_sql_results.schema import HEAD
from chords.actors import open_chord
from servers import Database
from servers.pool import on
from support import Backends

VERSION = "SELECT version_num FROM celery_taskmeta_version ORDER BY version_num"


def restarted(backends: Backends, backend: DatabaseBackend) -> DatabaseBackend:
    """A backend in a process that has not looked at the database yet."""
    backend.session_manager.invalidate(backend.settings.url, **backend.engine_options)
    return backends()


def works(backend: DatabaseBackend) -> bool:
    """Whether tasks, groups and chords are stored and found."""
    backend.store_result("t", 1, states.SUCCESS)
    group = GroupResult("g", [AsyncResult("t", app=backend.app)], app=backend.app)
    group.save()
    assert backend.database.rows.chords is not None
    open_chord(backend.database.rows.chords, "g", b"{}", size=1)
    return (backend.get_result("t"), backend.restore_group("g"), backend.database.rows.chords.look("g") is None) == (
        1,
        group,
        False,
    )


def tables(database: Database) -> set[str]:
    """The names of all tables."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    found = set(sa.inspect(engine).get_table_names())
    engine.dispose()
    return found


@pytest.mark.parametrize("version", ["0006", "9999", "3f2a9c", "ä'; --", ""], ids=ascii)
def test_a_version_that_is_ahead(
    database: Database, backends: Backends, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer release was here, or somebody else: the tables are used as they are, and nothing is complained of."""
    old = backends()
    quoted = version.replace("'", "''")
    database.execute(f"UPDATE celery_taskmeta_version SET version_num = '{quoted}'")
    with caplog.at_level(logging.WARNING, "celery_sql_results"):
        new = restarted(backends, old)

    assert works(new)
    assert database.execute(VERSION) == [(version,)]
    assert caplog.messages == []


def test_a_table_that_is_missing_beside_a_version_that_is_ahead(database: Database, backends: Backends) -> None:
    """It is created, and the version stays."""
    old = backends()
    database.execute("UPDATE celery_taskmeta_version SET version_num = '0099'")
    database.execute("DROP TABLE celery_taskmeta_parts")
    database.execute("DROP TABLE celery_tasksetmeta")

    assert works(restarted(backends, old))
    assert database.execute(VERSION) == [("0099",)]


def test_a_column_that_a_newer_release_has_dropped(
    database: Database, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not come back, and is not written."""
    old = backends()
    database.execute("UPDATE celery_taskmeta_version SET version_num = '0099'")
    database.execute("ALTER TABLE celery_taskmeta DROP date_started")
    new = restarted(backends, old)
    with pytest.raises(Exception, match=r"(?i)date_started"):
        database.execute("SELECT date_started FROM celery_taskmeta")

    assert works(new)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("versions", [("0001", "0002"), ("0002", HEAD), ("0001", "0099"), ()], ids=str)
def test_any_number_of_versions(database: Database, backends: Backends, versions: tuple[str, ...]) -> None:
    """Two processes on two nodes of a cluster may both have noted theirs. The newest is left, but for one to come."""
    old = backends()
    database.execute("DELETE FROM celery_taskmeta_version")
    for version in versions:
        database.execute(f"INSERT INTO celery_taskmeta_version VALUES ('{version}')")

    assert works(restarted(backends, old))
    expected = list(versions) if "0099" in versions else [HEAD]
    assert database.execute(VERSION) == [(version,) for version in expected]


def test_a_version_table_that_is_another(database: Database, backends: Backends) -> None:
    """It is left alone."""
    old = backends()
    database.execute("DROP TABLE celery_taskmeta_version")
    database.execute("CREATE TABLE celery_taskmeta_version (release_name VARCHAR(9))")

    assert works(restarted(backends, old))
    assert database.execute("SELECT * FROM celery_taskmeta_version") == []


@pytest.mark.parametrize(
    "table", ["celery_tasksetmeta", *(f"celery_taskmeta_{name}" for name in ("chords", "parts", "workers"))]
)
def test_a_table_that_is_missing(database: Database, backends: Backends, table: str) -> None:
    """Whatever the version says, it is created."""
    old = backends()
    database.execute(f"DROP TABLE {table}")

    assert works(restarted(backends, old))
    assert table in tables(database)


def test_another_group_table(database: Database, backends: Backends) -> None:
    """An app that has the task table in common with another, but not the groups."""
    first, second = backends(), backends(database_table_names={"group": "other_groups"})

    assert [works(backend) for backend in (first, second)] == [True, True]
    assert database.execute("SELECT COUNT(*) FROM other_groups") == [(1,)]


@on("postgresql", "portable")
def test_another_schema_of_groups(database: Database, backends: Backends) -> None:
    """With the sequence of their ids."""
    database.execute("CREATE SCHEMA elsewhere")
    first, second = backends(), backends(database_table_schemas={"group": "elsewhere"})

    assert [works(backend) for backend in (first, second)] == [True, True]
    assert database.execute("SELECT COUNT(*) FROM elsewhere.celery_tasksetmeta") == [(1,)]


@pytest.mark.parametrize("setting", ["database_table_names", "database_table_schemas"])
def test_a_name_that_is_too_long(backends: Backends, setting: str) -> None:
    """For a database, or for what somebody has told SQLAlchemy: the error says by how much, and what to change."""
    told = r"'x{40}\w*' has 4\d characters, .* at most 31: set .*database_table_names"
    with pytest.raises(SchemaError, match=told):
        backends(**{setting: {"task": "x" * 40}}, database_engine_options={"max_identifier_length": 31})


def test_a_group_table_of_an_older_celery(database: Database, backends: Backends) -> None:
    """It is made complete, though the version beside the task table is the newest."""
    backends()
    engine, old = sa.create_engine(database.url, poolclass=sa.NullPool), sa.Table("old_groups", sa.MetaData())
    for column in models_for().group.columns[:4]:
        old.append_column(sa.Column(column.name, column.type, primary_key=column.primary_key))
    old.create(engine)
    engine.dispose()
    backends(database_table_names={"group": "old_groups"})

    assert database.execute("SELECT content_type FROM old_groups") == []


@on("postgresql")
def test_an_engine_that_translates_schemas(database: Database, backends: Backends) -> None:
    """Tables are looked for where the statements look for them."""
    database.execute("CREATE SCHEMA tenant")
    options = {"execution_options": {"schema_translate_map": {None: "tenant"}}}
    manager = backends(database_create_tables_at_setup=False).session_manager
    for _ in range(2):
        engine = manager.get_engine(database.url, **options)
        manager.prepare_models(engine)
        manager.invalidate(database.url, **options)

    assert database.execute("SELECT COUNT(*) FROM tenant.celery_taskmeta_parts") == [(0,)]
    assert database.errors() == []


@pytest.mark.parametrize(
    "settings",
    [
        {"database_table_names": {"task": "results", "group": "results"}},
        {"database_table_names": {"task": "results", "group": "Results"}},
        {"database_table_names": {"task": "results", "group": "results_chords"}},
        {"database_table_names": {"group": "taskset_id_sequence"}},
    ],
    ids=str,
)
def test_names_that_collide(backends: Backends, settings: dict[str, dict[str, str]]) -> None:
    """One clear error before anything is created."""
    with pytest.raises(SettingError, match=f"database_table_names is .*{settings['database_table_names']['group']}"):
        backends(**settings)


def test_first_use_is_a_few_queries(database: Database, backends: Backends) -> None:
    """On PostgreSQL one for all tables and rights, and one for the version; everywhere none that writes."""
    old = backends()
    old.session_manager.invalidate(database.url, **old.engine_options)
    seen: list[str] = []
    backends(
        database_engine_callback=lambda engine: sa.event.listen(
            engine, "before_cursor_execute", lambda _connection, _cursor, statement, *_: seen.append(statement)
        )
    )

    most = {"postgresql": 2, "mariadb": 3}.get(database.kind, 40)
    assert 0 < len(seen) <= most
    assert [
        text for text in seen if text.split()[0] in ("CREATE", "ALTER", "INSERT", "UPDATE", "DELETE", "BEGIN")
    ] == []
