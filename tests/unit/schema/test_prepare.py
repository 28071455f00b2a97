"""The schema's version, known without Alembic, and the tables that it makes."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from celery_sql_results.dialects import impl_for
from celery_sql_results.models import TableNames, models_for
from celery_sql_results.schema import found, migrate
from celery_sql_results.schema import prepare as schema

#: Each table that SQLite has, with its columns; the one of waiters is for a database that can notify them.
COLUMNS = {table.name: frozenset(table.columns.keys()) for table in models_for().tables_for(impl_for("sqlite"))}
NO_ALEMBIC = """
import sys, sqlalchemy
from celery_sql_results.dialects import impl_for
from celery_sql_results.models import models_for
from celery_sql_results.schema.prepare import prepare_models
engine = sqlalchemy.create_engine(sys.argv[1])
prepare_models(engine, models_for())
print("alembic" in sys.modules)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'results.db'}")
    yield engine
    engine.dispose()


def version(engine: sa.Engine, table: str = "celery_taskmeta_version") -> str:
    """What the version table says."""
    with engine.connect() as connection:
        return str(connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalar_one())


def test_revisions_are_alembics() -> None:
    """A new one that is not listed would never be applied."""
    assert [step.revision for step in ScriptDirectory(str(migrate.SCRIPTS)).walk_revisions()] == [
        *found.REVISIONS[::-1]
    ]


def test_tables_are_made_and_stamped(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Every column is there, and the log says so once."""
    with caplog.at_level(logging.INFO, "celery_sql_results"):
        columns = [schema.prepare_models(engine, models_for()) for _ in range(2)][1].columns

    assert [name for name, found in COLUMNS.items() if columns[models_for().task.metadata.tables[name]] != found] == []
    assert version(engine) == found.HEAD
    assert [message for message in caplog.messages if "schema version" in message] == [
        f"the tables of celery_taskmeta are at schema version {found.HEAD} (before: None)"
    ]


def test_two_sets_of_tables_have_versions_of_their_own(engine: sa.Engine) -> None:
    """One does not keep the other from being made."""
    other = models_for(TableNames("schema_tasks", "schema_groups"))
    for models in (models_for(), other):
        schema.prepare_models(engine, models)
    tables = set(sa.inspect(engine).get_table_names()) - {"sqlite_sequence"}

    assert tables == {
        *COLUMNS,
        *("celery_taskmeta_version", "schema_tasks_version"),
        *(table.name for table in other.tables_for(impl_for("sqlite"))),
    }
    assert version(engine, "schema_tasks_version") == found.HEAD


def test_a_broken_run_can_be_repeated(engine: sa.Engine) -> None:
    """A table is there, the version is not: what is missing is made."""
    models_for().task.create(engine)
    schema.prepare_models(engine, models_for())

    assert sa.inspect(engine).has_table("celery_tasksetmeta")
    assert version(engine) == found.HEAD


@pytest.mark.parametrize(("prepared", "expected"), [(True, "False"), (False, "True")])
def test_alembic_is_imported_only_to_migrate(engine: sa.Engine, prepared: bool, expected: str) -> None:
    """Most processes find nothing to do, and start faster."""
    if prepared:
        schema.prepare_models(engine, models_for())
    command = [sys.executable, "-c", NO_ALEMBIC, str(engine.url)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)

    assert found.stdout.strip() == expected


def test_nothing_is_held_while_connecting(engine: sa.Engine) -> None:
    """A database that does not answer keeps nobody from another one, and no other thread from trying."""
    silent, goes_on, entered = sa.create_engine("sqlite://"), threading.Event(), threading.Semaphore(0)

    def hold(*_: object) -> None:
        entered.release()
        goes_on.wait(60)

    sa.event.listen(silent, "do_connect", hold)
    threads = [threading.Thread(target=schema.prepare_models, args=(silent, models_for())) for _ in range(2)]
    for thread in threads:
        thread.start()
    both_try = [entered.acquire(timeout=60) for _ in threads]
    columns = schema.prepare_models(engine, models_for()).columns
    goes_on.set()
    for thread in threads:
        thread.join()
    silent.dispose()

    assert both_try == [True, True]
    assert columns[models_for().task] == COLUMNS["celery_taskmeta"]


def test_tables_are_looked_at_once(engine: sa.Engine) -> None:
    """Not again in this process, for the same engine and tables."""
    schema.prepare_models(engine, models_for())
    seen: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda _connection, _cursor, statement, *_: seen.append(statement))
    schema.prepare_models(engine, models_for())

    assert seen == []


@pytest.mark.parametrize(("level", "expected"), [(logging.NOTSET, False), (logging.INFO, True)])
def test_alembic_is_quiet(level: int, expected: bool, engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Unless somebody wants to hear it."""
    logging.getLogger("alembic").setLevel(level)
    with caplog.at_level(logging.INFO):
        schema.prepare_models(engine, models_for())
    after = logging.getLogger("alembic").level
    logging.getLogger("alembic").setLevel(logging.NOTSET)

    assert any(record.name.startswith("alembic") for record in caplog.records) is expected
    assert after == level
