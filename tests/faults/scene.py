"""Where results are stored for long, and what may happen there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.disks import ON_DISK
from faults.load import until
from faults.trouble import as_role, crowded, disconnect, kill, locked, lose, proxied, read_only
from servers import KINDS, Database, Missing
from servers.disk import full
from servers.proxy import DIRECTIONS, Proxy

#: Seconds that a fault lasts, at least and at most.
A_WHILE = (0.1, 2.0)
#: Most bytes that pass before a cut: some statements.
WITHIN = 50_000
#: Seconds that a piece is late while the network is slow.
SLOW = 0.02
#: The disk holds the results of an hour, and what fills it is written quickly.
MEGABYTES = 1024
#: A commit is safe when the server says so; few clients may come, and nobody waits long for a lock.
SETTINGS = {
    "postgresql": {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "max_connections": "25",
        "lock_timeout": "500ms",
    },
    "mariadb": {
        "innodb_flush_log_at_trx_commit": "1",
        "innodb_lock_wait_timeout": "1",
        "max_connections": "25",
    },
    "sqlite": {},
}


@dataclass
class Scene:
    """Where it happens."""

    database: Database
    chance: random.Random
    #: The URL of the load, which leads through the proxy.
    url: str
    proxy: Proxy | None = None
    disk: Path | None = None

    def a_while(self) -> float:
        """How long a fault lasts."""
        return self.chance.uniform(*A_WHILE)

    @property
    def faults(self) -> dict[str, Callable[[Scene], object]]:
        """What may happen here, by name."""
        found = {"writes locked out": lasting(lambda scene: locked(scene.database))}
        if self.disk:
            found["disk full"] = lasting(lambda scene: full(scene.disk))
        return {**found, **NETWORK, **SERVER} if self.proxy else found


def lasting(fault: Callable[[Scene], Any]) -> Callable[[Scene], None]:
    """A fault that is over after a while."""

    def befall(scene: Scene) -> None:
        with fault(scene):
            time.sleep(scene.a_while())

    return befall


@contextmanager
def slow(scene: Scene) -> Iterator[None]:
    """The network delays everything."""
    scene.proxy.delay = SLOW
    yield
    scene.proxy.delay = 0.0


def cut_in_the_middle(scene: Scene) -> None:
    """The network ends a connection within a statement, or within an answer."""
    before = scene.proxy.cuts
    scene.proxy.cut_after(scene.chance.randrange(WITHIN), scene.chance.choice(DIRECTIONS))
    until(lambda: scene.proxy.cuts > before, "a connection is cut")


SERVER: dict[str, Callable[[Scene], object]] = {
    "server killed and restarted": lambda scene: kill(scene.database),
    "connections ended": lambda scene: disconnect(scene.database),
    "server read-only": lasting(lambda scene: read_only(scene.database)),
    "too many clients": lasting(lambda scene: crowded(scene.database)),
}
NETWORK: dict[str, Callable[[Scene], object]] = {
    "connections cut": lambda scene: scene.proxy.cut(),
    "cut in the middle": cut_in_the_middle,
    "network slow": lasting(slow),
    "network away": lambda scene: lose(scene.proxy, scene.a_while()),
}


@contextmanager
def scene_on(kind: str, chance: random.Random) -> Iterator[Scene]:
    """A server of its own, on a disk of its own if one can be mounted."""
    with ExitStack() as stack:
        server = stack.enter_context(KINDS[kind](SETTINGS[kind]))
        try:
            name, disk = stack.enter_context(ON_DISK[kind](server, MEGABYTES))
        except Missing:
            name, disk = "soak", None
            server.create_database(name)
        database = Database(kind, name, server.url(name), server)
        if kind == "sqlite":
            yield Scene(database, chance, database.url, disk=disk)
            return
        database = as_role(database)
        proxy, url = stack.enter_context(proxied(database))
        yield Scene(database, chance, url, proxy, disk)
