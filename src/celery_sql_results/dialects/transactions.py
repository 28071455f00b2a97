"""What is asked of a transaction that is somebody else's: in which database it is, and how far.

:class:`Transactions` is portable; a subclass holds what its database tells better.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import sqlalchemy as sa

__all__ = ["Transactions", "commits_each"]


class Transactions:
    """A database that we know nothing of: it is told by its URL, which only SQLAlchemy's connections have."""

    def identity(self, connection: Any, table: sa.Table, name: str) -> Hashable | None:
        """What tells the database of a connection, and the ``table`` there, from others; ``None`` if nothing does.

        ``name`` is the table as it stands in statements.
        """
        url = getattr(getattr(connection, "engine", None), "url", None)
        return url and (url.host, url.port, url.database)

    def shared_identity(self, connection: Any, table: sa.Table, name: str) -> Hashable | None:
        """The same, of servers that take writes to the same tables the same for all. It may take longer."""
        return self.identity(connection, table, name)

    def commits_each(self, driver_connection: Any) -> bool:
        """Whether a connection of a driver would commit the next statement by itself, as far as the driver tells."""
        return commits_each(driver_connection) and not self.is_open(driver_connection)

    def is_open(self, driver_connection: Any) -> bool:
        """Whether a transaction is open that was written in, or may have been; here unknown, so none."""
        return False


def commits_each(driver_connection: Any) -> bool:
    """Whether a connection is in autocommit. Each driver has a property, or a method that may also set it."""
    ask = getattr(driver_connection, "get_autocommit", None)
    found = ask() if ask is not None else getattr(driver_connection, "autocommit", False)
    return found is True or found == 1
