"""A Galera cluster: some nodes of MariaDB, each of which takes reads and writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from pymysql import Error
from typing_extensions import Self

from servers.galera import Node
from servers.process import free_port

__all__ = ["Galera"]

#: Seconds in which a cluster must have become what is awaited; generous, since a loaded machine is slow.
PATIENCE = 90.0
#: Seconds between two looks.
TICK = 0.02


class Galera:
    """Nodes by number, all running; a context manager."""

    def __init__(self, number: int = 3) -> None:
        addresses = [f"{Node.host}:{free_port()}" for _ in range(number)]
        self.nodes = [
            Node(f"node{place}", address, addresses, begins=place == 0) for place, address in enumerate(addresses)
        ]
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
                until(lambda node=node: node.is_synced, "a node has joined")  # type: ignore[misc]
            self._ending = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def url(self, database: str, node: int = 0) -> str:
        """The SQLAlchemy URL of a database by one node."""
        return self.nodes[node].url(database)

    def heal(self) -> None:
        """Return when all nodes run, and are one cluster."""
        for node in self.nodes:
            node.ensure()
        until(lambda: all(self._is_whole(node) for node in self.nodes), "all nodes are one cluster")

    def _is_whole(self, node: Node) -> bool:
        return node.is_synced and node.status("cluster_size") == str(len(self.nodes))

    @contextmanager
    def isolated(self, *nodes: Node) -> Iterator[None]:
        """Each of some nodes hears nobody else, and is heard by nobody, for the length of the block."""
        for node in nodes:
            node.provide("gmcast.isolate=1")
        try:
            for node in nodes:
                until(lambda node=node: node.status("cluster_status") != "Primary", "a node is alone")  # type: ignore[misc]
            yield
        finally:
            for node in nodes:
                node.provide("gmcast.isolate=0")


def until(condition: Callable[[], object], what: str) -> None:
    """Return when a condition holds; a server that does not answer is asked again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(Error):
            if condition():
                return
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:.0f} s"
        time.sleep(TICK)
