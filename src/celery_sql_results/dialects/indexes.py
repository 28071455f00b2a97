"""How an index is created while others write: here in portable SQL, which may keep them out meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, ExecutableDDLElement

__all__ = ["Indexes", "name_of", "text_of"]


def name_of(connection: Connection, index: sa.Index) -> str:
    """The name of an index in the database, where a long one is shortened; quoted if need be."""
    return connection.dialect.identifier_preparer.format_index(index)


def text_of(connection: Connection, statement: ExecutableDDLElement) -> str:
    """A statement that changes tables, on one line."""
    return " ".join(str(statement.compile(dialect=connection.dialect)).split())


class Indexes:
    """The indexes of a database that we know nothing of."""

    def invalid(self, connection: Connection, table: sa.Table) -> frozenset[str]:
        """Names of indexes of a table that somebody has begun to create, and that are of no use."""
        return frozenset()

    def statements(self, connection: Connection, table: sa.Table, index: sa.Index) -> Iterator[str]:
        """What creates an index of a table; each statement by itself, in no transaction."""
        yield text_of(connection, CreateIndex(index))
