"""What MySQL and MariaDB know of how they are set up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .inspection import schema_of
from .tending import Tending, Unfit

__all__ = ["MySQLTending", "quoted_user"]

#: 0 stands for no limit of a user's own.
_LIMIT = "SELECT @@max_connections, @@max_user_connections"
_COLUMNS = """
SELECT column_name AS name, column_type AS kind, character_maximum_length AS length, character_set_name AS charset,
    collation_name AS collation
FROM information_schema.columns WHERE table_name = :table AND table_schema =
"""
#: The character set that holds every text, and how the collations end that tell upper from lower case.
CHARSET, BINARY = "utf8mb4", "_bin"


def quoted_user(user: str) -> str:
    """A user of MySQL, as a GRANT names it: from any host, unless one is named."""
    name, at, host = user.rpartition("@")
    parts = (name, host) if at else (user, "%")
    return "@".join(f"`{part.replace('`', '``')}`" for part in parts)


class MySQLTending(Tending):
    """The information schema tells of columns; of connections, the variables."""

    creates_schemas = True
    sequence_seen = "SELECT ON"
    without_roles = None

    def as_if_connected(self, dialect: sa.Dialect) -> None:
        dialect.supports_sequences = bool(getattr(dialect, "is_mariadb", False))

    def grantee(self, dialect: sa.Dialect, role: str) -> str:
        return quoted_user(role)

    def clock(self, connection: Connection) -> datetime | None:
        now: datetime = connection.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one()
        return now

    def connection_limit(self, connection: Connection) -> int | None:
        of_all, of_user = connection.exec_driver_sql(_LIMIT).one()
        return min(int(of_all), int(of_user) or int(of_all))

    def unfit(self, connection: Connection, table: sa.Table) -> Iterator[Unfit]:
        schema = schema_of(connection, table)
        query = sa.text(_COLUMNS + ("DATABASE()" if schema is None else ":schema"))
        values = {"table": table.name} | ({} if schema is None else {"schema": schema})
        there = {row.name: row for row in connection.execute(query, values)}
        for column in table.columns:
            if column.name in there:
                yield from self._unfit_here(connection, column, there[column.name])

    def _unfit_here(self, connection: Connection, column: sa.Column[Any], row: Any) -> Iterator[Unfit]:
        needed, kind = column.type.compile(connection.dialect), _kind(row.kind)
        is_text = row.charset is not None
        is_short = row.length is not None and row.length < _length(needed)
        is_other = is_text and row.charset != CHARSET
        is_loose = is_text and not str(row.collation).endswith(BINARY)
        is_small = kind.startswith("INT") and needed == "BIGINT"
        is_coarse = needed.startswith("DATETIME") and kind != needed
        if is_short or is_other or is_loose or is_small or is_coarse:
            found = f"{kind} {row.collation}" if is_other or is_loose else kind
            yield self._unfit(connection, column, found, is_short or is_other)

    def _unfit(self, connection: Connection, column: sa.Column[Any], found: str, hurts: bool) -> Unfit:
        unfit = super()._unfit(connection, column, found, hurts)
        is_text = isinstance(column.type, (sa.String, sa.Text))
        return unfit._replace(needed=f"{unfit.needed} {CHARSET}{BINARY}") if is_text else unfit

    def _alter(self, connection: Connection, column: sa.Column[Any], needed: str) -> str:
        quoted = connection.dialect.identifier_preparer
        text = f" CHARACTER SET {CHARSET} COLLATE {CHARSET}{BINARY}" if isinstance(column.type, sa.String) else ""
        counts = column.autoincrement is True and not connection.dialect.supports_sequences
        more = text + " NOT NULL" * (not column.nullable) + " AUTO_INCREMENT" * counts
        return f"ALTER TABLE {quoted.format_table(column.table)} MODIFY {quoted.format_column(column)} {needed}{more}"


def _kind(column_type: Any) -> str:
    """A type in capitals; MySQL may hand it over as bytes, and MariaDB shows how wide a number is printed."""
    text = column_type.decode() if isinstance(column_type, bytes) else str(column_type)
    kind = text.upper()
    return kind.partition("(")[0] if kind.startswith(("INT", "BIGINT")) else kind


def _length(needed: str) -> int:
    """Characters or bytes that a type takes at least, of the types that are long or have a length."""
    if needed.startswith("VARCHAR("):
        return int(needed[8:-1])
    return 2**32 - 1 if needed.startswith("LONG") else 0
