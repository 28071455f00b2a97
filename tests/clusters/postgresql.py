"""What all clusters of PostgreSQL share: nodes on a network of their own, and how they are reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psycopg

from clusters.cluster import Cluster, Node
from faults.load import until
from servers.proxy import Proxy

#: The database of the results, and a role that may do all in it and nothing beyond.
RESULTS, ROLE, PASSWORD = "results", "app", "of-the-app"
#: A commit as large as none, which is waited for as every other.
COMMIT = "SELECT pg_catalog.pg_logical_emit_message(true, 'watch', '')"
#: A standby, and its primary, notice within seconds that the other is silent.
SETTINGS = {
    "wal_level": "replica",
    "max_wal_senders": "10",
    "wal_sender_timeout": "3s",
    "wal_receiver_timeout": "3s",
    "wal_retrieve_retry_interval": "200ms",
}


class PostgreSQLNode(Node):
    """A server of PostgreSQL that clients reach through `front`."""

    def __init__(self, name: str, front: Proxy) -> None:
        self.name, self.front = name, front

    def url(self) -> str:
        """The URL of the results on this node alone."""
        return f"postgresql+psycopg://{ROLE}:{PASSWORD}@{self.front.host}:{self.front.port}/{RESULTS}?connect_timeout=3"

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection]:
        """A connection of an operator."""
        where = f"host={self.front.host} port={self.front.port} user=postgres application_name=watch"
        with psycopg.connect(where, dbname="postgres", autocommit=True, connect_timeout=2) as connection:
            yield connection

    def is_primary(self) -> bool:
        """Whether it says so of itself.

        Raises:
            psycopg.Error: it cannot be reached.
        """
        with self.connected() as connection:
            return connection.execute("SELECT NOT pg_catalog.pg_is_in_recovery()").fetchone() == (True,)

    def has_replayed(self, position: str) -> bool:
        """Whether it has all that was written up to a position."""
        with self.connected() as connection:
            query = f"SELECT pg_catalog.pg_last_wal_replay_lsn() >= '{position}'"
            return connection.execute(query).fetchone() == (True,)

    @contextmanager
    def writing(self) -> Iterator[Callable[[], object]]:
        """What commits something on a connection of its own."""
        with self.connected() as connection:
            yield lambda: connection.execute(COMMIT)


def several_hosts(nodes: Sequence[PostgreSQLNode]) -> str:
    """The URL of the results on whichever node takes writes."""
    hosts = "&".join(f"host={node.front.host}:{node.front.port}" for node in nodes)
    return (
        f"postgresql+psycopg://{ROLE}:{PASSWORD}@/{RESULTS}?{hosts}&target_session_attrs=read-write&connect_timeout=3"
    )


def furnish(primary: PostgreSQLNode, nodes: Sequence[PostgreSQLNode]) -> None:
    """Make the role and the database."""
    with primary.connected() as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    renew(primary, nodes)


def renew(primary: PostgreSQLNode, nodes: Sequence[PostgreSQLNode]) -> None:
    """Make the database, or make it anew, and return when all nodes have it: libpq goes on to the next host only where
    one refuses connections, not where it lacks the database."""
    with primary.connected() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {RESULTS} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {RESULTS} OWNER {ROLE}")
        ((position,),) = connection.execute("SELECT pg_catalog.pg_current_wal_lsn()::text")
    for node in nodes:
        if node is not primary:
            until(lambda node=node: node.has_replayed(position), f"{node.name} has the database")


class PostgreSQLCluster(Cluster):
    """Nodes of which one is the primary; whatever they are made of ends with `_stack`."""

    nodes: Sequence[PostgreSQLNode]
    primary: PostgreSQLNode
    _stack: ExitStack

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def entrances(self) -> Sequence[str]:
        """Also by several hosts, in either order."""
        return [self.url, several_hosts(self.nodes), several_hosts(self.nodes[::-1])]

    def renew(self) -> None:
        """Empty the database of the results."""
        renew(self.primary, self.nodes)
