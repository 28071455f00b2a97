"""A database nobody has heard of: PostgreSQL under another name.

The package knows what to do on PostgreSQL, MySQL, MariaDB and SQLite. Everywhere else it must work too, more slowly,
with its portable implementation. It takes that here, since it does not know the name: tests see it on a real server.

Only processes that have imported `servers` know the URL. Alembic does not know the dialect either, as in real life.
"""

from __future__ import annotations

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg


class PortableDialect(PGDialect_psycopg):
    """`portable+psycopg://`: speaks PostgreSQL, answers to `portable`."""

    name = "portable"
    supports_statement_cache = True


def register() -> None:
    """Make the URL known to SQLAlchemy in this process."""
    registry.register("portable.psycopg", __name__, PortableDialect.__name__)
