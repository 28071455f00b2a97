"""What PostgreSQL knows of how it is set up."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import postgresql_catalog
from .tending import Bloat, Tending

__all__ = ["PostgreSQLTending"]

_CLOCK = "SELECT pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())"
#: What is left of the server's connections beside those for superusers, of those of the database, and of this role.
_LIMIT = """
SELECT LEAST(
    CAST(pg_catalog.current_setting('max_connections') AS pg_catalog.int4)
        OPERATOR(pg_catalog.-) CAST(pg_catalog.current_setting('superuser_reserved_connections') AS pg_catalog.int4),
    (SELECT CASE WHEN d.datconnlimit OPERATOR(pg_catalog.>=) 0 THEN d.datconnlimit END FROM pg_catalog.pg_database d
     WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()),
    (SELECT CASE WHEN r.rolconnlimit OPERATOR(pg_catalog.>=) 0 THEN r.rolconnlimit END FROM pg_catalog.pg_roles r
     WHERE r.rolname OPERATOR(pg_catalog.=) current_user)
)
"""
_BLOAT = sa.text("""
SELECT s.n_dead_tup AS dead, s.n_live_tup AS live, NOT (
    pg_catalog.current_setting('autovacuum') OPERATOR(pg_catalog.=) 'off'
    OR EXISTS (
        SELECT FROM pg_catalog.pg_options_to_table(c.reloptions) o
        WHERE o.option_name OPERATOR(pg_catalog.=) 'autovacuum_enabled'
            AND NOT CAST(o.option_value AS pg_catalog.bool)
    )
) AS is_swept
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_stat_all_tables s ON s.relid OPERATOR(pg_catalog.=) c.oid
WHERE c.oid OPERATOR(pg_catalog.=) CAST(pg_catalog.to_regclass(:table) AS pg_catalog.oid)
""")


class PostgreSQLTending(Tending):
    """Whatever is asked is in the catalog, which everybody may read."""

    creates_schemas = grants_schemas = True
    least = (12,)
    without_roles = None
    to_clean = ("SELECT", "UPDATE")  # rows are locked before they are deleted, which takes that

    def largest_id(self, connection: Connection, table: sa.Table) -> int | None:
        return postgresql_catalog.largest_id(connection, table)

    def clock(self, connection: Connection) -> datetime | None:
        now: datetime = connection.exec_driver_sql(_CLOCK).scalar_one()
        return now

    def connection_limit(self, connection: Connection) -> int | None:
        limit: int | None = connection.exec_driver_sql(_LIMIT).scalar_one()
        return limit

    def bloat(self, connection: Connection, table: sa.Table) -> Bloat | None:
        row = connection.execute(_BLOAT, {"table": postgresql_catalog.quoted_table(connection, table)}).first()
        return None if row is None else Bloat(row.dead or 0, row.live or 0, row.is_swept)
