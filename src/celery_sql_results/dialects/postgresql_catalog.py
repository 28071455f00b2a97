"""What PostgreSQL's catalog says of tables: which columns are there, and what this role may do with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, DropIndex

from .indexes import Indexes, name_of, text_of
from .inspection import RIGHTS, Found, Item, schema_of, sequence_of

__all__ = ["ConcurrentIndexes", "largest_id", "look_at"]

_DENIED = ", ".join(
    f"CASE WHEN NOT (usable AND pg_catalog.has_table_privilege(oid, '{right}')) THEN '{right}' END" for right in RIGHTS
)
#: Those who own a table, or a function that a trigger calls: what they have written runs as whoever uses the table. Not
#: told of: a superuser, the owner of the database, that of a schema which the settings name, and of the roles that this
#: one belongs to all (a superuser belongs to each, which says nothing).
_STRANGERS = """
SELECT pg_catalog.concat(theirs.what, pg_catalog.quote_ident(r.rolname))
FROM (
    SELECT c.relowner AS role, 'belongs to ' AS what
    UNION ALL SELECT p.proowner,
        pg_catalog.concat('has a trigger, ', pg_catalog.quote_ident(t.tgname), ', whose function belongs to ')
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
) AS theirs JOIN pg_catalog.pg_roles r ON r.oid = theirs.role
WHERE c.relkind <> 'S' AND NOT (
    r.rolsuper OR r.rolname = current_user OR (pg_catalog.pg_has_role(r.oid, 'MEMBER') AND NOT me.rolsuper)
    OR r.oid = me.owner OR (r.oid = n.nspowner AND n.nspname OPERATOR(pg_catalog.=) ANY (:schemas))
)
"""
#: Names are qualified, so that nobody's own functions are called. A table without a schema is the one that the
#: search_path leads to. What lies in a schema that may not be used can be seen, but not touched. The last row is about
#: the connection: on a standby, and where somebody has set a role or a database read-only, it only reads.
_QUERY = sa.text(f"""
SELECT relname, nspname, visible, columns, strangers,
    CASE relkind WHEN 'S' THEN
        CASE WHEN NOT (usable AND pg_catalog.has_sequence_privilege(oid, 'USAGE')) THEN 'USAGE' END
    ELSE pg_catalog.concat_ws(' ', {_DENIED}) END AS denied
FROM (
    SELECT c.oid, c.relname, c.relkind, n.nspname, pg_catalog.pg_table_is_visible(c.oid) AS visible,
        pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usable,
        ARRAY(SELECT CAST(a.attname AS pg_catalog.text) FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
        ARRAY({_STRANGERS}) AS strangers
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, (
        SELECT r.rolsuper, d.datdba AS owner FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
        WHERE r.rolname = current_user AND d.datname = pg_catalog.current_database()
    ) AS me
    WHERE c.relname OPERATOR(pg_catalog.=) ANY (:names) AND c.relkind IN ('r', 'p', 'v', 'f', 'S')
        AND (n.nspname OPERATOR(pg_catalog.=) ANY (:schemas) OR pg_catalog.pg_table_is_visible(c.oid))
) AS found
UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, pg_catalog.current_setting('transaction_read_only')
""").bindparams(*(sa.bindparam(name, type_=sa.ARRAY(sa.String)) for name in ("names", "schemas")))  # noqa: S608 - constants


def look_at(connection: Connection, tables: Sequence[sa.Table]) -> dict[sa.Table, Found]:
    """What is there of ``tables`` and of their sequences."""
    sequences = {table: sequence_of(connection, table) for table in tables}
    items: list[Item] = [*tables, *filter(None, sequences.values())]
    schemas = sorted({schema_of(connection, item) or "" for item in items})
    names = sorted({item.name for item in items})
    rows: dict[tuple[str | None, str], Any] = {}
    *seen, of_connection = connection.execute(_QUERY, {"names": names, "schemas": schemas})
    reads_only = of_connection.denied == "on"
    for row in seen:
        rows[row.nspname, row.relname] = row
        if row.visible:
            rows[None, row.relname] = row

    def found(item: Item | None) -> Any:
        return None if item is None else rows.get((schema_of(connection, item), item.name))

    return {table: _found(found(table), sequence, found(sequence), reads_only) for table, sequence in sequences.items()}


#: The bytes of a column of ids, and the last number of its sequence, where there are both.
_IDS = sa.text("""
SELECT t.typlen, (
    SELECT s.seqmax FROM pg_catalog.pg_sequence s
    WHERE s.seqrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(:sequence)
)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(:table) AND a.attname = 'id'
""")


def largest_id(connection: Connection, table: sa.Table) -> int | None:
    """The last id that a table can have, if it is one that may be reached."""
    quoted, sequence = connection.dialect.identifier_preparer, sequence_of(connection, table)
    names = {"table": quoted.format_table(sa.table(table.name, schema=schema_of(connection, table))), "sequence": None}
    if sequence is not None:
        drawn_from = sa.Sequence(sequence.name, schema=schema_of(connection, sequence))
        names["sequence"] = quoted.format_sequence(drawn_from)
    row = connection.execute(_IDS, names).first()
    if row is None:
        return None
    largest: int = min(2 ** (8 * row[0] - 1) - 1, row[1] or 2**63 - 1)
    return largest if largest < 2**62 else None


#: Indexes that ``CREATE INDEX CONCURRENTLY`` has left behind unfinished, or works on.
_INVALID = sa.text("""
SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(:table) AND NOT i.indisvalid
""")


class ConcurrentIndexes(Indexes):
    """Indexes that are created while others write."""

    def invalid(self, connection: Connection, table: sa.Table) -> frozenset[str]:
        found = sa.table(table.name, schema=schema_of(connection, table))
        name = connection.dialect.identifier_preparer.format_table(found)
        return frozenset(connection.scalars(_INVALID, {"table": name}))

    def statements(self, connection: Connection, table: sa.Table, index: sa.Index) -> Iterator[str]:
        """What was broken off is dropped before: it has the name, and is of no use."""
        quote = connection.dialect.identifier_preparer.quote
        index.dialect_options["postgresql"]["concurrently"] = True
        if name_of(connection, index) in map(quote, self.invalid(connection, table)):
            yield text_of(connection, DropIndex(index))
        yield text_of(connection, CreateIndex(index))


def _found(table: Any, wanted: sa.Sequence | None, sequence: Any, reads_only: bool) -> Found:
    return Found(
        frozenset() if table is None else frozenset(table.columns),
        () if table is None else tuple(table.denied.split()),
        has_sequence=wanted is None or sequence is not None,
        may_draw=sequence is None or not sequence.denied,
        reads_only=reads_only,
        strangers=() if table is None else tuple(table.strangers),
    )
