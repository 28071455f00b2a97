"""The schema is prepared once: one cheap check, else lock, migrate, stamp.

Any number of processes may meet on an empty database. Each looks at the version table; where that is behind or absent,
each takes the database's lock and looks again, so one migrates and the others find the work done. Nobody fails.

Where this role may not change tables, those that exist are used as they are: columns that are not there are not
written, and one warning holds the SQL to run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from celery.utils.log import get_logger
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.schema import CreateTable

from celery_sql_results.dialects import connected, impl_for
from celery_sql_results.errors import SchemaError
from celery_sql_results.models import TASK_COLUMNS, Models

__all__ = ["HEAD", "prepare_models"]

logger = get_logger(__name__)

#: The newest revision, known without loading Alembic; a test compares it with the revisions.
HEAD = "0003"
SCRIPTS = Path(__file__).parent / "migrations"
#: The columns that every release of Celery made; without them there is nothing to work with.
ESSENTIAL = frozenset(TASK_COLUMNS) - {"children", "content_type"}

#: The columns that each table really has; none, or no entry, stands for a table that is not there.
Columns = Mapping[sa.Table, frozenset[str]]

_lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))  # it may be held by a thread
_prepared: WeakKeyDictionary[Engine, dict[Models, Columns]] = WeakKeyDictionary()


def prepare_models(engine: Engine, models: Models) -> Columns:
    """Make the tables of ``models`` ready and return the columns that each of them has.

    Raises:
        SchemaError: the tables are not there and this role may not create them.
        sqlalchemy.exc.DBAPIError: the database could not be reached.
    """
    known = _prepared.get(engine, {}).get(models)
    if known is not None:
        return known
    with _lock:
        by_models = _prepared.setdefault(engine, {})
        if models not in by_models:
            by_models[models] = _prepare(engine, models)
        return by_models[models]


def _prepare(engine: Engine, models: Models) -> Columns:
    impl = impl_for(engine.dialect.name)
    if impl.isolation_level:
        engine = engine.execution_options(isolation_level=impl.isolation_level)
    attempt = 0
    while True:
        try:
            if _current(engine, models) != HEAD:
                _upgrade(engine, models)
            return {table: frozenset(table.columns.keys()) for table in models.tables_for(impl)}
        except exc.DBAPIError as error:
            if impl.setup_attempts == 1 and impl.is_transient(error):
                raise
            if attempt + 1 == impl.setup_attempts:
                return _as_they_are(engine, models, error)
        impl.pause(attempt)
        attempt += 1


def _version_of(models: Models) -> sa.Table:
    return sa.Table(
        models.version_table,
        sa.MetaData(),
        sa.Column("version_num", sa.String(32), primary_key=True),
        schema=models.task.schema,
    )


def _current(engine: Engine, models: Models) -> str | None:
    with connected(engine) as connection:
        return _look(connection, models)


def _look(connection: Connection, models: Models) -> str | None:
    """The revision that the database is at. A version table that may not be read counts as absent."""
    version = _version_of(models)
    if not sa.inspect(connection).has_table(version.name, schema=version.schema):
        return None
    found: str | None = connection.execute(sa.select(version.c.version_num)).scalar()
    return found


def _upgrade(engine: Engine, models: Models) -> None:
    """Migrate to the head under the lock, unless another process did so while we waited for it."""
    impl = impl_for(engine.dialect.name)
    with connected(engine) as connection, impl.schema_lock(connection, models.version_table):
        current = _look(connection, models)
        if current != HEAD:
            _run_migrations(connection, models)
            logger.info("the tables of %s are at schema version %s (before: %s)", models.task.name, HEAD, current)


def _run_migrations(connection: Connection, models: Models) -> None:
    """Let Alembic apply what is missing. It is imported here, because most processes find nothing to do."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(SCRIPTS))
    _make_known_to_alembic(connection.dialect.name)
    context = MigrationContext.configure(
        connection,
        opts={
            "fn": lambda revision, _context: scripts._upgrade_revs("head", revision),
            "version_table": models.version_table,
            "version_table_schema": models.task.schema,
        },
    )
    context.run_migrations(op=Operations(context), models=models)


def _make_known_to_alembic(dialect_name: str) -> None:
    """Alembic wants an impl for each dialect; one that nobody wrote an impl for gets the portable one."""
    from alembic.ddl import impl

    if dialect_name not in impl._impls:
        type("PortableImpl", (impl.DefaultImpl,), {"__dialect__": dialect_name})


def _as_they_are(engine: Engine, models: Models, refused: exc.DBAPIError) -> Columns:
    """Use tables that we may not change, on a connection that nothing failed on."""
    from .migrations import missing_columns

    impl = impl_for(engine.dialect.name)
    with connected(engine) as connection:
        missing = {table: missing_columns(connection, table) for table in models.tables_for(impl)}
        remedy = ";\n".join(_sql(connection, models)) + ";"
        refusing = {
            table for table, names in missing.items() if names is not None and not impl.may_use(connection, table)
        }
    found = {table: _found(table, names) for table, names in missing.items()}
    # Ours can be done without; that Celery's own may not be written shows when somebody writes, and in its own words.
    found |= {table: frozenset() for table in refusing - {models.task, models.group}}
    if ESSENTIAL - found[models.task] or not found[models.group]:
        raise SchemaError(
            f"the result tables are not complete and could not be created ({_first_line(refused)}). "
            f"Let a role that may create tables run:\n{remedy}"
        ) from refused
    if any(names is None or names for names in missing.values()):
        logger.warning("%s", _lacking(missing, remedy))
    return found


def _found(table: sa.Table, missing: list[str] | None) -> frozenset[str]:
    return frozenset() if missing is None else frozenset(table.columns.keys()).difference(missing)


def _lacking(missing: Mapping[sa.Table, list[str] | None], remedy: str) -> str:
    tables = [f"{table.name} is missing" for table, names in missing.items() if names is None]
    columns = [f"{table.name} lacks {', '.join(names)}" for table, names in missing.items() if names]
    return (
        f"{'; '.join(tables + columns)}. The backend does without, until a role that may create and alter tables "
        f"has run:\n{remedy}"
    )


def _sql(connection: Connection, models: Models) -> Iterator[str]:
    """What a migration would run, as text for an operator."""
    from .migrations import steps_for

    for table in models.tables_for(impl_for(connection.dialect.name)):
        for step in steps_for(connection, table):
            yield str(step.compile(dialect=connection.dialect)).strip()
    version = _version_of(models)
    stamp: sa.Insert | sa.Update = version.update().values(version_num=HEAD)
    if not sa.inspect(connection).has_table(version.name, schema=version.schema):
        yield str(CreateTable(version).compile(dialect=connection.dialect)).strip()
        stamp = version.insert().values(version_num=HEAD)
    yield str(stamp.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))


def _first_line(error: exc.DBAPIError) -> Any:
    return str(error.orig).strip().splitlines()[0]
