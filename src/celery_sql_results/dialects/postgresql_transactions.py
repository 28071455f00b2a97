"""What PostgreSQL and its drivers know of a transaction of somebody else's."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import sqlalchemy as sa

from .transactions import Transactions

__all__ = ["PostgreSQLTransactions"]

#: A copy of a cluster has the numbers of the first, but was not started in the same microsecond. The table is the one
#: that the ``search_path`` leads to.
_IDENTITY = sa.text("""
SELECT pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) AS started,
    CAST(pg_catalog.current_database() AS pg_catalog.text) AS name,
    CAST(CAST(pg_catalog.to_regclass(CAST(:name AS pg_catalog.text)) AS pg_catalog.oid) AS pg_catalog.int8) AS number
""")
#: libpq's PQTRANS_IDLE and PQTRANS_UNKNOWN: https://www.postgresql.org/docs/current/libpq-status.html
_NOT_OPEN = (0, 4)


class PostgreSQLTransactions(Transactions):
    """Drivers that use libpq know what the server has last said of the transaction."""

    def identity(self, connection: Any, table: sa.Table, name: str) -> Hashable | None:
        [found] = connection.execute(_IDENTITY, {"name": name})
        return None if found[2] is None else tuple(found)

    def is_open(self, driver_connection: Any) -> bool:
        info = getattr(driver_connection, "info", None)
        return info is not None and not driver_connection.closed and int(info.transaction_status) not in _NOT_OPEN
