"""The history of the schema, as Alembic revisions under ``versions/``.

A revision that is applied by itself has only steps that are instant on a large live table: create a table, add a column
that may be NULL. Each step looks first and does nothing where its work is done, so a broken run can be repeated. Where
the lock of the set-up keeps out only those on the same server, each statement also bears that others do the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic.ddl.base import AddColumn
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, CreateSequence, CreateTable, ExecutableDDLElement

from celery_sql_results.dialects import impl_for, sequence_of

__all__ = ["creation", "steps_for"]


def steps_for(connection: Connection, table: sa.Table) -> Iterator[ExecutableDDLElement]:
    """The statements that make ``table`` complete: it is created, or the columns that it lacks are added."""
    impl = impl_for(connection.dialect.name)
    found, others = impl.look_at(connection, [table])[table], impl.has_other_primaries(connection)
    if not found.has_sequence:
        yield CreateSequence(_sequence(connection, table, new=not found.columns), if_not_exists=others)
    if not found.columns:
        yield from creation(table, others)
        return
    for column in table.columns:
        if column.name not in found.columns:
            step = AddColumn(table.name, column, schema=table.schema)
            step.if_not_exists = others  # older releases of Alembic do not know it: then who is late looks again
            yield step


def creation(table: sa.Table, if_not_exists: bool = False) -> Iterator[ExecutableDDLElement]:
    """The statements that create a table and its indexes; its sequence is another matter."""
    yield CreateTable(table, if_not_exists=if_not_exists)
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield CreateIndex(index, if_not_exists=if_not_exists)


def _sequence(connection: Connection, table: sa.Table, new: bool) -> sa.Sequence:
    """A table from before SQLAlchemy knew MariaDB's sequences has ids without one: it starts behind them."""
    sequence: Any = sequence_of(connection, table)
    last = 0 if new else connection.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0
    options = impl_for(connection.dialect.name).sequence_options(connection)
    return sa.Sequence(sequence.name, schema=sequence.schema, start=last + 1, **options)
