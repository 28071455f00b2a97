"""The schema's version, known without Alembic, and the tables that it makes."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from celery_sql_results.dialects import impl_for
from celery_sql_results.models import TableNames, models_for
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


def test_head_is_alembics() -> None:
    """A new revision without a new HEAD would never be applied."""
    assert ScriptDirectory(str(schema.SCRIPTS)).get_heads() == [schema.HEAD]


def test_tables_are_made_and_stamped(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Every column is there, and the log says so once."""
    with caplog.at_level(logging.INFO, "celery_sql_results"):
        columns = [schema.prepare_models(engine, models_for()) for _ in range(2)][1]

    assert [name for name, found in COLUMNS.items() if columns[models_for().task.metadata.tables[name]] != found] == []
    assert version(engine) == schema.HEAD
    assert [message for message in caplog.messages if "schema version" in message] == [
        f"the tables of celery_taskmeta are at schema version {schema.HEAD} (before: None)"
    ]


def test_two_sets_of_tables_have_versions_of_their_own(engine: sa.Engine) -> None:
    """One does not keep the other from being made."""
    other = models_for(TableNames("schema_tasks", "schema_groups"))
    for models in (models_for(), other):
        schema.prepare_models(engine, models)
    found = set(sa.inspect(engine).get_table_names()) - {"sqlite_sequence"}

    assert found == {
        *COLUMNS,
        *("celery_taskmeta_version", "schema_tasks_version"),
        *(table.name for table in other.tables_for(impl_for("sqlite"))),
    }
    assert version(engine, "schema_tasks_version") == schema.HEAD


def test_a_broken_run_can_be_repeated(engine: sa.Engine) -> None:
    """A table is there, the version is not: what is missing is made."""
    models_for().task.create(engine)
    schema.prepare_models(engine, models_for())

    assert sa.inspect(engine).has_table("celery_tasksetmeta")
    assert version(engine) == schema.HEAD


@pytest.mark.parametrize(("prepared", "expected"), [(True, "False"), (False, "True")])
def test_alembic_is_imported_only_to_migrate(engine: sa.Engine, prepared: bool, expected: str) -> None:
    """Most processes find nothing to do, and start faster."""
    if prepared:
        schema.prepare_models(engine, models_for())
    command = [sys.executable, "-c", NO_ALEMBIC, str(engine.url)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)

    assert found.stdout.strip() == expected
