"""What MySQL and MariaDB say of tables: which columns are there, and what this role may do with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex

from .indexes import Indexes, text_of
from .inspection import RIGHTS, Found, Item, schema_of, sequence_of
from .refusals import number_of

__all__ = ["ONLY_READS", "OnlineIndexes", "look_at"]

#: A statement is denied on a table, or on a column.
DENIED = {1142, 1143}
#: A server that only reads refuses to look at a statement that writes as well, unless the role may write all the same.
ONLY_READS = {
    1290,  # --read-only, or --super-read-only of group replication
    1792,  # the transaction is read-only
    1836,  # read-only mode
}
#: What drawing a number needs: https://mariadb.com/docs/server/reference/sql-structure/sequences/sequence-functions
TO_DRAW = frozenset({"SELECT", "INSERT"})


class OnlineIndexes(Indexes):
    """Indexes that are created while others write, or not at all."""

    def statements(self, connection: Connection, table: sa.Table, index: sa.Index) -> Iterator[str]:
        yield f"{text_of(connection, CreateIndex(index))} ALGORITHM=INPLACE LOCK=NONE"


#: The columns of a table, and the rights on all of them.
Columns = tuple[frozenset[str], frozenset[str]]


def look_at(connection: Connection, tables: Sequence[sa.Table]) -> dict[sa.Table, Found]:
    """What is there of ``tables`` and of their sequences. DELETE is no right on columns, so it is asked for apart."""
    sequences = {table: sequence_of(connection, table) for table in tables}
    items: list[Item] = [*tables, *filter(None, sequences.values())]
    seen = dict(zip(items, _columns(connection, items), strict=True))
    undeletable = _denied(connection, [table for table in tables if seen[table][0]])
    reads_only, undeletable = undeletable is None, undeletable or ()

    def found(table: sa.Table, sequence: sa.Sequence | None) -> Found:
        columns, rights = seen[table]
        denied = (
            right for right in RIGHTS if right not in rights and (right != "DELETE" or table in (undeletable or ()))
        )
        parts, to_draw = (columns, TO_DRAW) if sequence is None else seen[sequence]
        has_sequence, may_draw = bool(parts) or sequence is None, to_draw >= TO_DRAW
        return Found(columns, tuple(denied) if columns else (), has_sequence, may_draw, reads_only)

    return {table: found(table, sequence) for table, sequence in sequences.items()}


def _columns(connection: Connection, items: Sequence[Item]) -> list[Columns]:
    """One query. Each name is compared by itself: then MariaDB opens that table, and reads no directory."""
    values: dict[str, str] = {}
    arms = []
    for number, item in enumerate(items):
        values[f"name{number}"], schema = item.name, schema_of(connection, item)
        if schema is not None:
            values[f"schema{number}"] = schema
        arms.append(
            f"SELECT {number} AS number, column_name AS name, privileges AS rights FROM information_schema.columns "  # noqa: S608 - only numbers are put in
            f"WHERE table_schema = {'DATABASE()' if schema is None else f':schema{number}'} "
            f"AND table_name = :name{number}"
        )
    names: list[set[str]] = [set() for _ in items]
    rights = [set(RIGHTS) for _ in items]
    for number, name, granted in connection.execute(sa.text(" UNION ALL ".join(arms)), values):
        names[number].add(name)
        rights[number] &= set(granted.upper().split(","))
    return [(frozenset(found), frozenset(may)) for found, may in zip(names, rights, strict=True)]


def _denied(connection: Connection, tables: Sequence[sa.Table]) -> Collection[sa.Table] | None:
    """The tables from which this role may not delete; ``None`` if the server only reads.

    Nothing is run; of all together it may also be denied to read.
    """
    if not tables:
        return ()
    names = ", ".join(_quoted(connection, table) for table in tables)
    joined = f"{names} USING {names}" if len(tables) > 1 else names
    number = _refusal(connection, f"EXPLAIN DELETE FROM {joined} WHERE 1 = 0")  # noqa: S608 - names are quoted
    if number in ONLY_READS:
        return None
    if number not in DENIED or len(tables) == 1:
        return tables if number in DENIED else ()  # else the use will tell
    return [table for each in tables for table in _denied(connection, [each]) or ()]


def _refusal(connection: Connection, statement: str) -> int | None:
    """The number of the error of a statement. By the driver alone: the pool leaves a server that takes no writes."""
    with closing(connection.connection.cursor()) as cursor:
        try:
            cursor.execute(statement)
            cursor.fetchall()
        except connection.dialect.loaded_dbapi.Error as error:
            return number_of(error)
    return None


def _quoted(connection: Connection, table: sa.Table) -> str:
    quote = connection.dialect.identifier_preparer.quote_identifier
    return ".".join(quote(part) for part in (schema_of(connection, table), table.name) if part)
