"""Redis, from the operating system's package: a broker, and a backend to compare with."""

from __future__ import annotations

import socket
from typing import ClassVar

from servers.base import Server
from servers.process import find

REMEDY = "apt-get install redis-server"


class Redis(Server):
    """A Redis server that keeps nothing on disk: what it held is gone after a restart."""

    kind = scheme = "redis"
    greeting = "Ready to accept connections"
    defaults: ClassVar = {"appendonly": "no", "bind": Server.host, "save": ""}

    def check(self) -> None:
        """Raise Missing if the package is not installed."""
        find("redis-server", REMEDY)

    def _command(self) -> list[str]:
        settings = {"port": str(self.port), "dir": str(self.folder), **self.settings}
        return [
            find("redis-server", REMEDY),
            *(word for name, value in settings.items() for word in (f"--{name}", value)),
        ]

    def url(
        self, database: str = "0", *, user: str | None = None, password: str | None = None, driver: str | None = None
    ) -> str:
        """The URL of a numbered database."""
        return f"redis://{self.host}:{self.port}/{database}"

    def clear(self) -> None:
        """Forget everything."""
        with socket.create_connection((self.host, self.port)) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            connection.recv(5)
