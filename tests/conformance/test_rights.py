"""The backend works with the rights that it is given, and says what to run."""

from __future__ import annotations

import logging
import re

import pytest
import sqlalchemy as sa
from celery import states
from celery.result import AsyncResult, GroupResult
from sqlalchemy.pool import NullPool

from celery_sql_results import DatabaseBackend, SchemaError
from legacy import RELEASES, tables
from servers import Database
from servers.pool import on
from support import Backends, app_on, request

databases = on("postgresql", "mariadb")
PASSWORD = "sec:ret"


@pytest.fixture
def clerk(database: Database) -> str:
    """The URL of a role that may use the tables of the database, but neither create nor alter any."""
    database.server.create_role("clerk", PASSWORD, database.name, ddl=False)
    return database.server.url(database.name, user="clerk", password=PASSWORD)


def works(backend: DatabaseBackend) -> bool:
    """Whether tasks and groups are stored, found and deleted."""
    backend.store_result("t", {"a": 1}, states.SUCCESS, request=request())
    group = GroupResult("g", [AsyncResult("t", app=backend.app)], app=backend.app)
    group.save()
    found = backend.get_result("t"), backend.restore_group("g"), next(iter(backend.get_many(["t"], timeout=0)))[0]
    backend.forget("t")
    backend.delete_group("g")
    return found == ({"a": 1}, group, "t") and not backend.task_result_exists("t")


def old_tables(database: Database, release: str) -> None:
    """The empty tables of a release."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    tables(release, engine)
    engine.dispose()


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package warned of, without the threads that still look for what other tests awaited."""
    names = ("celery_sql_results.backend", "celery_sql_results.writing.retry", "celery_sql_results.schema.prepare")
    ours = (record for record in caplog.records if record.name in names)
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@databases
def test_on_full_tables(database: Database, backends: Backends, clerk: str, caplog: pytest.LogCaptureFixture) -> None:
    """No warning, no statement that fails."""
    backends()
    backend = backends(clerk, result_extended=True)

    assert works(backend)
    assert complaints(caplog) == []
    assert database.errors() == []


@databases
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("extended", [False, True])
def test_on_tables_of_an_older_celery(
    database: Database,
    backends: Backends,
    clerk: str,
    release: str,
    extended: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning with the SQL, however many backends; columns that are not there are not written."""
    old_tables(database, release)

    assert all(works(backends(clerk, result_extended=extended)) for _ in range(2))
    [warning] = complaints(caplog)
    assert re.search(r"celery_taskmeta lacks .*content_type", warning)
    assert re.search(r"ALTER TABLE celery_taskmeta ADD (COLUMN )?content_type VARCHAR\(155\)", warning)
    assert "current transaction is aborted" not in "".join(database.errors())


@databases
@pytest.mark.parametrize("release", RELEASES)
def test_the_sql_of_the_warning_works(
    database: Database, backends: Backends, clerk: str, release: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Run by somebody who may, it makes the tables complete: the next start is silent."""
    old_tables(database, release)
    backend = backends(clerk)
    [warning] = complaints(caplog)
    for statement in warning.partition(":\n")[2].split(";\n"):
        database.execute(statement.rstrip(";"))
    caplog.clear()
    backend.session_manager.invalidate(clerk, **backend.engine_options)

    assert works(backends(clerk, result_extended=True))
    assert complaints(caplog) == []


@databases
def test_on_no_tables(database: Database, clerk: str) -> None:
    """One clear error at start-up, with the SQL to run; what it says works."""
    with pytest.raises(SchemaError) as caught:
        _ = app_on(clerk).backend
    message = str(caught.value)
    for statement in message.partition("run:\n")[2].split(";\n"):
        database.execute(statement.rstrip(";"))
    backend = app_on(clerk).backend
    found = works(backend)
    backend.session_manager.invalidate(clerk, **backend.engine_options)

    assert found
    assert [word for word in (PASSWORD, "sec%3Aret") if word in message] == []


@on("postgresql")
def test_on_tables_in_a_schema_that_is_not_there(backends: Backends) -> None:
    """The error is about the schema."""
    with pytest.raises((SchemaError, sa.exc.DBAPIError), match="nowhere"):
        backends(database_table_schemas={"task": "nowhere", "group": "nowhere"})


@databases
def test_read_only(database: Database, backends: Backends) -> None:
    """Who may only read, reads, and is refused a write at once."""
    backends().store_result("t", 1, states.SUCCESS)
    database.server.create_role("guest", PASSWORD, database.name, ddl=False, write=False)
    guest = backends(database.server.url(database.name, user="guest", password=PASSWORD))

    assert guest.get_result("t") == 1
    with pytest.raises(sa.exc.DBAPIError, match="denied"):
        guest.store_result("t", 2, states.SUCCESS)
