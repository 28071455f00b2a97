"""A node of a Galera cluster: MariaDB, from the operating system's packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from servers.mariadb import MariaDB
from servers.process import Missing, find, free_port

REMEDY = "apt-get install mariadb-server galera-4 rsync"
#: Where packages put the library that replicates.
PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")
#: A node that is silent is left after 2 s instead of 5, so that tests wait less; what else is asked of the provider is
#: that a node which was away can be given what it lacks, and no flow control: a node that lags holds nobody up.
PROVIDER = {
    "evs.suspect_timeout": "PT2S",
    "evs.inactive_timeout": "PT4S",
    "evs.keepalive_period": "PT0.3S",
    "evs.inactive_check_period": "PT0.2S",
    "gcache.size": "128M",
    "gcs.fc_limit": "10000",
    "pc.recovery": "true",
}


def provider() -> str:
    """The path of the library.

    Raises:
        Missing: it is not installed.
    """
    for path in PROVIDERS:
        if Path(path).exists():
            return path
    raise Missing(f"The library of Galera was not found. {REMEDY}")


class Node(MariaDB):
    """One server of a cluster, by default of one that it is alone in.

    Args:
        name: how it is named.
        address: where the others speak to it.
        members: the addresses of all.
        begins: whether its first start begins the cluster; else it joins, and copies what is there.
    """

    greeting = "Synchronized with group, ready for connections"
    remedy: ClassVar = REMEDY
    lacks: ClassVar = {
        **MariaDB.lacks,
        "a time limit": "A node that waits for the others takes longer than the 50 ms which tests allow.",
        "sequences as Celery makes them": "A cluster refuses CREATE SEQUENCE without INCREMENT BY 0 (error 1235).",
    }
    defaults: ClassVar = {
        **MariaDB.defaults,
        "binlog_format": "ROW",
        "default_storage_engine": "InnoDB",
        "innodb_autoinc_lock_mode": "2",
        "wsrep_cluster_name": "tests",
        "wsrep_on": "ON",
        "wsrep_sst_method": "rsync",
    }

    def __init__(
        self, name: str = "node", address: str = "", members: Sequence[str] = (), *, begins: bool = True
    ) -> None:
        self._name, self._begins = name, begins
        self._address = address or f"{self.host}:{free_port()}"
        self._members = members or [self._address]
        super().__init__()

    def check(self) -> None:
        """Raise Missing if a package or the driver is not installed."""
        super().check()
        provider()
        find("rsync", REMEDY)

    def _install(self) -> None:
        if self._begins:
            super()._install()
        else:
            self._home.run(["mkdir", str(self.folder / "data")])

    def _command(self) -> list[str]:
        own = f"{self.host}:{free_port()}"
        options = {**PROVIDER, "gmcast.listen_addr": f"tcp://{self._address}", "ist.recv_addr": own}
        group = {
            "provider": provider(),
            "provider_options": ";".join(f"{name}={value}" for name, value in options.items()),
            "cluster_address": f"gcomm://{','.join(self._members)}",
            "node_name": self._name,
            "node_address": self._address,
            "sst_receive_address": f"{self.host}:{free_port()}",
        }
        arguments = [f"--wsrep-{name.replace('_', '-')}={value}" for name, value in group.items()]
        return [*super()._command(), *arguments, *(["--wsrep-new-cluster"] if self._begins else [])]

    def _launch(self) -> None:
        state = self.folder / "data" / "grastate.dat"
        if self._begins and state.exists():  # it was killed, and does not know that nobody has more than it
            state.write_text(state.read_text().replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1"))
        super()._launch()
        self._begins = len(self._members) == 1  # whoever comes back joins the others

    def status(self, name: str) -> str:
        """A value of ``SHOW STATUS``, after ``wsrep_``."""
        return str(self.execute(f"SHOW STATUS LIKE 'wsrep_{name}'")[0][1])

    @property
    def is_synced(self) -> bool:
        """Whether it belongs to the part of the cluster that has the majority, and takes reads and writes."""
        return self.status("local_state_comment") == "Synced" and self.status("cluster_status") == "Primary"

    def provide(self, option: str) -> None:
        """Set an option of the library that replicates."""
        self.execute(f"SET GLOBAL wsrep_provider_options = '{option}'")
