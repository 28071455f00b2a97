"""What is there of a backend's tables, in which version, and what that means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from celery_sql_results.dialects import Found, impl_for, schema_of
from celery_sql_results.models import TASK_COLUMNS, Models

__all__ = ["ESSENTIAL", "HEAD", "REVISIONS", "State", "look", "version_table"]

#: The revisions from the oldest to the newest, known without loading Alembic; a test compares them with the files.
REVISIONS = ("0001", "0002", "0003", "0004", "0005")
HEAD = REVISIONS[-1]
#: The columns that every release of Celery made; without them there is nothing to work with.
ESSENTIAL = frozenset(TASK_COLUMNS) - {"children", "content_type"}


@dataclass(frozen=True)
class State:
    """What is there.

    Attributes:
        tables: each table that this database has use for.
        version_table: the table of the version; a name, not one of the models.
        version: what is there of it.
        versions: what it holds, one as a rule; ``None`` if it cannot be read.
    """

    models: Models
    tables: Mapping[sa.Table, Found]
    version_table: sa.Table = field(compare=False)
    version: Found
    versions: frozenset[str] | None

    @property
    def is_ahead(self) -> bool:
        """Whether a newer release was here. What cannot be a version is taken for one of a release to come."""
        if self.versions is None:
            return bool(self.version.columns) and "version_num" not in self.version.columns
        return not self.versions <= set(REVISIONS)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do: no table is missing, and unless a newer release was here, nothing else."""
        if self.is_ahead:
            return not self.missing
        at_head = bool(self.version.columns) if self.versions is None else self.versions == {HEAD}
        return at_head and not any(map(self.lacks, self.tables))

    @property
    def is_usable(self) -> bool:
        """Whether results can be stored or read at all."""
        found = self.tables
        return found[self.models.task].columns >= ESSENTIAL and bool(found[self.models.group].columns)

    @property
    def reads_only(self) -> bool:
        """Whether nothing can be written now, on a standby for example: a failover may change that."""
        return any(found.reads_only for found in self.tables.values())

    @property
    def missing(self) -> list[sa.Table]:
        """The tables that are not there."""
        return [table for table, found in self.tables.items() if not found.columns]

    def lacks(self, table: sa.Table) -> bool:
        """Whether anything of a table is not there."""
        found = self.tables[table]
        return not (found.has_sequence and found.columns >= set(table.columns.keys()))

    def may_use(self, table: sa.Table) -> bool:
        """Whether nothing of a table of ours is missing that must be there, and this role may do everything with it."""
        found, needed = self.tables[table], {column.name for column in table.columns if not column.info.get("optional")}
        return found.has_sequence and found.columns >= needed and not found.denied


def look(connection: Connection, models: Models) -> State:
    """Ask the database: one query, or a few, for all tables; and one for the version if there is any."""
    impl = impl_for(connection.dialect.name)
    tables, version = models.tables_for(impl), version_table(models)
    found = impl.look_at(connection, [*tables, version])
    of_version = found.pop(version)
    return State(models, found, version, of_version, _versions(connection, version, of_version))


def version_table(models: Models) -> sa.Table:
    """The table of the version."""
    number = sa.Column("version_num", sa.String(32), primary_key=True)
    return sa.Table(models.version_table, sa.MetaData(), number, schema=models.task.schema)


def _versions(connection: Connection, table: sa.Table, found: Found) -> frozenset[str] | None:
    if not found.columns:
        return frozenset()
    if "version_num" not in found.columns or "SELECT" in found.denied:
        return None
    # Not the table itself, which the cache of compiled statements would keep.
    version = sa.table(table.name, sa.column("version_num", sa.String), schema=schema_of(connection, table))
    try:
        return frozenset(str(number) for (number,) in connection.execute(sa.select(version)))
    except exc.DatabaseError as error:
        impl = impl_for(connection.dialect.name)
        if impl.setup_attempts == 1 or impl.is_transient(error):  # where once is enough, rights were looked at before
            raise
        connection.rollback()
        return None
