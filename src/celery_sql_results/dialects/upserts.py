"""The guarded upsert of the databases that know ``ON CONFLICT``."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from .puts import Put, may_replace

__all__ = ["guarded", "on_conflict_upsert"]


def on_conflict_upsert(insert: Any, where: Put, columns: tuple[str, ...], prefix: str = "") -> sa.Insert:
    """``INSERT … ON CONFLICT DO UPDATE … WHERE``, which PostgreSQL and SQLite share. ``insert`` is the dialect's own.

    ``inline()`` keeps SQLAlchemy from asking for the new id with RETURNING. Values are bound with a prefix.
    """
    statement = insert(where.table).values({column: sa.bindparam(prefix + column) for column in columns}).inline()
    return guarded(statement, where, columns)


def guarded(statement: Any, where: Put, columns: tuple[str, ...]) -> sa.Insert:
    """An insert that becomes an update where the key is there and the stored state may be replaced."""
    new = {column: statement.excluded[column] for column in columns if column not in where.keys}
    guard = may_replace(where) if where.protected else None
    keys = [where.table.c[key] for key in where.keys]
    upsert: sa.Insert = statement.on_conflict_do_update(index_elements=keys, set_=new, where=guard)
    return upsert
