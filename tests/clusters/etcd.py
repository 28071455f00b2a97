"""etcd, from the operating system's package: where the nodes of a cluster agree on who is the primary."""

from __future__ import annotations

from typing import ClassVar

from servers.life import Life
from servers.process import find, free_port

REMEDY = "apt-get install etcd-server"


class Etcd(Life):
    """One member of etcd, which is alone."""

    kind = "etcd"
    greeting = "ready to serve client requests"
    defaults: ClassVar = {"heartbeat-interval": "50", "election-timeout": "500"}

    def check(self) -> None:
        """Raise Missing if the package is not installed."""
        find("etcd", REMEDY)

    def _install(self) -> None:
        clients, peers = (f"http://127.0.0.1:{port}" for port in (self.port, free_port()))
        own = {"name": "etcd", "data-dir": str(self.folder / "data"), "initial-cluster": f"etcd={peers}"}
        urls = {
            **dict.fromkeys(("listen-client-urls", "advertise-client-urls"), clients),
            **dict.fromkeys(("listen-peer-urls", "initial-advertise-peer-urls"), peers),
        }
        self.settings = {**own, **urls, **self.settings}

    def _command(self) -> list[str]:
        return [find("etcd", REMEDY), *(f"--{name}={value}" for name, value in self.settings.items())]
