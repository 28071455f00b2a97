"""The history of the schema, as Alembic revisions under ``versions/``.

A revision that is applied by itself has only steps that are instant on a large live table: create a table, add a column
that may be NULL. Each step looks first and does nothing where its work is done, so a broken run can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic.ddl.base import AddColumn
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, CreateSequence, CreateTable, ExecutableDDLElement

__all__ = ["missing_columns", "steps_for"]


def missing_columns(connection: Connection, table: sa.Table) -> list[str] | None:
    """The columns of ``table`` that the database lacks; ``None`` if it lacks the table."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(table.name, schema=table.schema):
        return None
    there = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
    return [column.name for column in table.columns if column.name not in there]


def steps_for(connection: Connection, table: sa.Table) -> Iterator[ExecutableDDLElement]:
    """The statements that make ``table`` complete: it is created, or the columns that it lacks are added."""
    missing = missing_columns(connection, table)
    yield from _sequence_step(connection, table, new=missing is None)
    if missing is None:
        yield CreateTable(table)
        yield from map(CreateIndex, table.indexes)
    for name in missing or ():
        yield AddColumn(table.name, table.c[name], schema=table.schema)


def _sequence_step(connection: Connection, table: sa.Table, new: bool) -> Iterator[ExecutableDDLElement]:
    """A table from before SQLAlchemy knew MariaDB's sequences has ids without one: it starts behind them."""
    sequence = table.c.id.default if "id" in table.c else None
    if not connection.dialect.supports_sequences or not isinstance(sequence, sa.Sequence):
        return
    if not sa.inspect(connection).has_sequence(sequence.name, schema=sequence.schema):
        last = 0 if new else connection.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0
        yield CreateSequence(sa.Sequence(sequence.name, schema=sequence.schema, start=last + 1))
