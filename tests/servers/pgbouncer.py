"""PgBouncer, from the operating system's package: a pool of connections in front of PostgreSQL."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import ClassVar

from servers.base import Server
from servers.postgresql import PostgreSQL
from servers.process import find

REMEDY = "apt-get install pgbouncer"


class PgBouncer(Server):
    """A PgBouncer in front of a running PostgreSQL, in transaction mode unless `settings` say otherwise.

    It trusts everyone, and passes users on by name to a PostgreSQL that does so too: the administrator only.
    """

    kind = "pgbouncer"
    scheme = "postgresql"
    driver = "psycopg"
    administrator = PostgreSQL.administrator
    greeting = "process up"
    stop_signal = signal.SIGKILL  # it has nothing to save, and else waits for its clients
    defaults: ClassVar = {
        "auth_type": "any",
        "default_pool_size": "20",
        "ignore_startup_parameters": "extra_float_digits",
        "listen_addr": Server.host,
        "max_client_conn": "500",
        "pool_mode": "transaction",
    }

    def __init__(self, postgresql: PostgreSQL, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self._postgresql = postgresql

    def check(self) -> None:
        """Raise Missing if the package is not installed."""
        find("pgbouncer", REMEDY)

    def _install(self) -> None:
        behind = f"host={self.host} port={self._postgresql.port} user={self.administrator}"
        settings = {"listen_port": str(self.port), "unix_socket_dir": "", **self.settings}
        lines = [
            "[databases]",
            f"* = {behind}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        self._home.write("pgbouncer.ini", "\n".join([*lines, ""]))

    def _command(self) -> list[str]:
        return [find("pgbouncer", REMEDY), str(self.folder / "pgbouncer.ini")]
