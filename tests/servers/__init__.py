"""Real database servers for tests, the demo and benchmarks.

    with PostgreSQL() as server:
        server.create_database("shop")
        create_engine(server.url("shop"))

Each server is private to one temporary folder, listens on loopback only, and leaves nothing behind: neither a process
nor a file, also when the Python process that started it is killed.
"""

from __future__ import annotations

from servers import portable
from servers.base import Database, Server, Unsupported
from servers.firebird import Firebird
from servers.mariadb import MariaDB
from servers.pgbouncer import PgBouncer
from servers.postgresql import PostgreSQL
from servers.process import Missing
from servers.redis import Redis
from servers.releases import RELEASES
from servers.sqlite import SQLite
from servers.standby import PRIMARY, Standby

__all__ = [
    "KINDS",
    "PRIMARY",
    "RELEASES",
    "Database",
    "Firebird",
    "MariaDB",
    "Missing",
    "PgBouncer",
    "PostgreSQL",
    "Redis",
    "SQLite",
    "Server",
    "Standby",
    "Unsupported",
    "use",
]

#: The servers that stand alone, by kind.
KINDS: dict[str, type[Server]] = {
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "sqlite": SQLite,
    "firebird": Firebird,
    "redis": Redis,
}


def use(name: str) -> str:
    """Let a server of `RELEASES` stand for its kind from now on, and return that; a name may end with `:driver`."""
    release, _, driver = name.partition(":")
    chosen = RELEASES.get(release) or KINDS[release]
    KINDS[chosen.kind] = type(chosen.__name__, (chosen,), {"driver": driver or chosen.driver})
    return chosen.kind


portable.register()
