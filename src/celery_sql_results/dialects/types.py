"""Column types and table options that differ between databases.

The generic type is what Celery's own backend uses; the variants repair what is too small or too coarse there: on MySQL
and MariaDB a ``BLOB`` ends at 64 KB, a ``DATETIME`` at whole seconds, and a table takes the server's character set.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

_MYSQL = ("mysql", "mariadb")

#: SQLite counts up only a column that is declared as exactly ``INTEGER``.
Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), *_MYSQL)
LongText = sa.Text().with_variant(mysql.LONGTEXT(), *_MYSQL)
#: Always UTC, without an offset, to the microsecond.
Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_MYSQL)

#: A binary collation compares ids exactly; the usual ones think that ``a`` equals ``A``.
TABLE_OPTIONS: dict[str, Any] = {
    "sqlite_autoincrement": True,
    **{f"{name}_charset": "utf8mb4" for name in _MYSQL},
    **{f"{name}_collate": "utf8mb4_bin" for name in _MYSQL},
}
