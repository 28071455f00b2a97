"""What is there of a table, and what this role may do with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

__all__ = ["RIGHTS", "Found", "Item", "inspect_tables", "schema_of", "sequence_of"]

#: What a role must be allowed to do with a table, to use all of it.
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")


#: What has a name and a schema.
Item = sa.Table | sa.Sequence


class Found(NamedTuple):
    """What a database says of one table.

    Attributes:
        columns: its columns; none if there is no such table.
        denied: those of :data:`RIGHTS` that this role does not have on it.
        has_sequence: whether the sequence of its ids is there. True where the table needs none.
        may_draw: whether this role may take a number from the sequence.
        reads_only: whether nothing can be written on this connection now, whatever the rights are.
        strangers: who may decide what runs as this role when it uses the table, though nobody has said that it trusts
            them: what of it is theirs, in words that follow its name.
    """

    columns: frozenset[str] = frozenset()
    denied: tuple[str, ...] = ()
    has_sequence: bool = True
    may_draw: bool = True
    reads_only: bool = False
    strangers: tuple[str, ...] = ()


def sequence_of(connection: Connection, table: sa.Table) -> sa.Sequence | None:
    """The sequence that the ids of a table come from, if the database has sequences."""
    default = table.c.id.default if "id" in table.c else None
    return default if connection.dialect.supports_sequences and isinstance(default, sa.Sequence) else None


def schema_of(connection: Connection, item: Item) -> str | None:
    """The schema in which statements on this connection look for a table: an engine may translate its name."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    return schemas.get(item.schema, item.schema)


def inspect_tables(connection: Connection, tables: Sequence[sa.Table]) -> dict[sa.Table, Found]:
    """Look with SQLAlchemy's inspector: it knows every database, and nothing of rights."""
    inspector, knows_schemas = sa.inspect(connection), getattr(connection.dialect, "supports_schemas", True)

    def look(table: sa.Table) -> Found:
        sequence = sequence_of(connection, table)
        if not knows_schemas and schema_of(connection, table):  # it would look among the tables that have none
            return Found(has_sequence=sequence is None)
        there = sequence is None or inspector.has_sequence(sequence.name, schema_of(connection, sequence))
        with suppress(exc.NoSuchTableError):  # it was dropped between two looks
            if inspector.has_table(table.name, schema_of(connection, table)):  # which also knows schemas
                columns = inspector.get_columns(table.name, schema_of(connection, table))
                return Found(frozenset(column["name"] for column in columns), has_sequence=there)
        return Found(has_sequence=there)

    return {table: look(table) for table in tables}
