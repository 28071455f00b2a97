"""The steps that make the tables complete, run under the lock of the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable

from celery_sql_results.dialects import DefaultImpl, impl_for

from .found import HEAD, State
from .quiet import quiet

__all__ = ["create_missing", "migrate", "stamp", "steps"]

SCRIPTS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, impl: DefaultImpl, state: State) -> None:
    """Apply all revisions, each of which does only what is not done, and note the version.

    Alembic is imported here, because most processes find nothing to do.
    """
    with quiet():
        from alembic.operations import Operations
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        _make_known_to_alembic(connection.dialect)
        op = Operations(MigrationContext.configure(connection))
        for revision in reversed(list(ScriptDirectory(str(SCRIPTS)).walk_revisions())):
            revision.module.upgrade(op, state.models)
    for statement in stamp(connection, state):
        connection.execute(statement)
        if isinstance(statement, CreateTable):
            impl.publish(connection)


def create_missing(connection: Connection, state: State) -> None:
    """Create the tables that are not there beside those of a newer release, whose version stays."""
    for table in state.missing:
        for step in steps(connection, table):
            connection.execute(step)


def steps(connection: Connection, table: sa.Table) -> Iterator[sa.Executable]:
    """The statements that make a table complete."""
    with quiet():
        from .migrations import steps_for
    yield from steps_for(connection, table)


def stamp(connection: Connection, state: State) -> Iterator[sa.Executable]:
    """The statements that note the version, and no other that was seen; what others have noted since stays."""
    table, seen = state.version_table, state.versions or frozenset()
    if not state.version.columns:
        others = impl_for(connection.dialect.name).has_other_primaries(connection)
        yield CreateTable(table, if_not_exists=others)
    if HEAD not in seen:
        yield table.insert().values(version_num=HEAD)
    if seen - {HEAD}:
        yield table.delete().where(sa.or_(*(table.c.version_num == number for number in sorted(seen - {HEAD}))))


def _make_known_to_alembic(dialect: sa.Dialect) -> None:
    """Alembic wants an impl for each dialect; one that nobody wrote an impl for gets the portable one.

    With ``ADD`` as the SQL standard has it: the word ``COLUMN``, which Alembic adds, is not taken everywhere.
    """
    from alembic.ddl import impl
    from alembic.ddl.base import AddColumn, alter_table

    def add_column(element: AddColumn, compiler: sa.sql.compiler.DDLCompiler, **_: Any) -> str:
        column = compiler.get_column_specification(element.column)
        return f"{alter_table(compiler, element.table_name, element.schema)} ADD {column}"

    try:
        impl.DefaultImpl.get_by_dialect(dialect)
    except KeyError:
        type("PortableImpl", (impl.DefaultImpl,), {"__dialect__": dialect.name})
        compiles(AddColumn, dialect.name)(add_column)
