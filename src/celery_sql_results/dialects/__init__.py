"""The one place where databases differ.

``impl_for`` is the only question that the rest of the package asks about a database; everything else is a method or an
ability of the impl that it answers with. A database that has no file here gets :class:`DefaultImpl`, which is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from celery_sql_results.connections.pool import PingingPool, connected, pool_options

from .base import DefaultImpl
from .contracts import ChangeCounter, Listener
from .indexes import name_of
from .inspection import RIGHTS, Found, schema_of, sequence_of
from .mysql import MySQLImpl
from .postgresql import PostgreSQLImpl
from .puts import Put, as_dicts
from .sqlite import SQLiteImpl
from .taken_ids import put_under_a_free_id

__all__ = [
    "RIGHTS",
    "ChangeCounter",
    "DefaultImpl",
    "Found",
    "Listener",
    "PingingPool",
    "Put",
    "as_dicts",
    "connected",
    "impl_for",
    "known_databases",
    "name_of",
    "pool_options",
    "put_under_a_free_id",
    "schema_of",
    "sequence_of",
    "unconnected",
]

_IMPLS: Final[dict[str, DefaultImpl]] = {
    "postgresql": PostgreSQLImpl(),
    "mysql": MySQLImpl(),
    "mariadb": MySQLImpl(),
    "sqlite": SQLiteImpl(),
}
_DEFAULT: Final = DefaultImpl()


def known_databases() -> tuple[str, ...]:
    """SQLAlchemy's names of those that have a file here."""
    return tuple(_IMPLS)


def impl_for(dialect_name: str) -> DefaultImpl:
    """Return the impl for SQLAlchemy's name of a database (``engine.dialect.name``)."""
    return _IMPLS.get(dialect_name, _DEFAULT)


def unconnected(name: str) -> sa.Dialect:
    """A dialect by SQLAlchemy's name of its database, as on a server of a usual release. Its driver is not loaded.

    Raises:
        sqlalchemy.exc.NoSuchModuleError: SQLAlchemy knows no such database, or one that another package brings.
    """
    make: Callable[..., sa.Dialect] = sa.make_url(f"{name}://").get_dialect()
    dialect = make(paramstyle="named")
    impl_for(dialect.name).tending.as_if_connected(dialect)
    return dialect
