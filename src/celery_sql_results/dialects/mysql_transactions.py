"""What MySQL, MariaDB and their drivers know of a transaction of somebody else's."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import sqlalchemy as sa

from .transactions import Transactions

__all__ = ["MySQLTransactions"]

_IDENTITY = sa.text("SELECT @@hostname AS host, @@port AS port, @@datadir AS folder, DATABASE() AS name")
#: No row where the server does not know it.
_CLUSTER = sa.text("SHOW STATUS LIKE 'wsrep_cluster_state_uuid'")
#: SERVER_STATUS_IN_TRANS of the protocol.
_IN_TRANSACTION = 1


class MySQLTransactions(Transactions):
    """PyMySQL keeps what the server has last said of the transaction; mysql-connector has a property."""

    def identity(self, connection: Any, table: sa.Table, name: str) -> tuple[Hashable, Hashable]:
        [(host, port, folder, database)] = connection.execute(_IDENTITY, {})
        return (host, port, folder), table.schema or database

    def shared_identity(self, connection: Any, table: sa.Table, name: str) -> Hashable | None:
        server, database = self.identity(connection, table, name)
        [*found] = connection.execute(_CLUSTER, {})
        return (found and found[0][1]) or server, database

    def is_open(self, driver_connection: Any) -> bool:
        known = getattr(driver_connection, "in_transaction", None)
        if known is not None:
            return bool(known)
        return bool(getattr(driver_connection, "server_status", 0) & _IN_TRANSACTION)
