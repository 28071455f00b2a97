"""Column types and table options that differ between databases.

The generic type is what Celery's own backend uses; the variants repair what is too small or too coarse there: on MySQL
and MariaDB a ``BLOB`` ends at 64 KB, a ``DATETIME`` at whole seconds, and a table takes the server's character set.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

_MYSQL = ("mysql", "mariadb")


def utc_now() -> datetime:
    """The time now, in UTC and without an offset: what every column of a time holds."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


class UntypedTimestamp(sa.TypeDecorator[Any]):
    """A time, or nothing where no time is.

    SQLite's columns hold whatever somebody has put there. All that is awaited is looked for in one query, and one such
    value must not be an error of all of it.
    """

    impl = sa.DateTime
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        read: Any = super().result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            try:
                return read(value)
            except (TypeError, ValueError):
                return None

        return process


class FiniteTimestamp(sa.TypeDecorator[Any]):
    """A time, or nothing where Python has none for it: PostgreSQL also knows infinity, 44 BC and the year 10000.

    Without an offset, also where somebody else has made the column with a time zone: that of the session is UTC.
    """

    impl = sa.DateTime
    cache_ok = True

    def column_expression(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        first: Any = sa.literal_column("TIMESTAMP '0001-01-01'")
        end: Any = sa.literal_column("TIMESTAMP '10000-01-01'")
        return sa.case((sa.and_(column >= first, column < end), sa.cast(column, sa.DateTime())))


class UntypedBlob(sa.TypeDecorator[Any]):
    """Bytes, or those of a text or a number."""

    impl = sa.LargeBinary
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        def process(value: Any) -> Any:
            return value if value is None or isinstance(value, bytes) else str(value).encode()

        return process


class NullableBlob(sa.TypeDecorator[Any]):
    """Bytes, or NULL, which is kept from what a dialect does with bytes: not each expects it there."""

    impl = sa.LargeBinary
    cache_ok = True
    python_type = bytes  # that of a decorator is any

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        bind = super().bind_processor(dialect)
        return bind and (lambda value: None if value is None else bind(value))


#: SQLite counts up only a column that is declared as exactly ``INTEGER``.
Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Blob = (
    NullableBlob()
    .with_variant(mysql.LONGBLOB(), *_MYSQL)
    .with_variant(UntypedBlob(), "sqlite")
    .with_variant(sa.LargeBinary(), "postgresql")
)
LongText = sa.Text().with_variant(mysql.LONGTEXT(), *_MYSQL)
#: Always UTC, without an offset, to the microsecond.
Timestamp = (
    sa.DateTime()
    .with_variant(mysql.DATETIME(fsp=6), *_MYSQL)
    .with_variant(UntypedTimestamp(), "sqlite")
    .with_variant(FiniteTimestamp(), "postgresql")
)


def only_where(condition: sa.ColumnElement[bool]) -> dict[str, Any]:
    """Options of an index that holds only some rows, where the database knows such indexes; elsewhere it holds all.

    What the condition compares with must be written into it: a plan that is made once for all values, and SQLite
    always, use such an index only where the query says the same in the same words.
    """
    return {f"{name}_where": condition for name in ("postgresql", "sqlite")}


#: A binary collation compares ids exactly; the usual ones think that ``a`` equals ``A``.
TABLE_OPTIONS: dict[str, Any] = {
    "sqlite_autoincrement": True,
    **{f"{name}_charset": "utf8mb4" for name in _MYSQL},
    **{f"{name}_collate": "utf8mb4_bin" for name in _MYSQL},
}
