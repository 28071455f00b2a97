"""A Galera cluster: some nodes of MariaDB, each of which takes reads and writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from threading import Event, Thread
from typing import Any, ClassVar

import pymysql
from typing_extensions import Self

from clusters.answerer import Answerer
from clusters.cluster import Cluster, Fault, Node
from clusters.haproxy import ANSWERS_MARIADB, SAYS_YES, HAProxy, Member
from faults.load import until
from servers.galera import Node as Server
from servers.process import free_port

__all__ = ["Galera", "GaleraNode"]

#: The database of the results, and a role that may do all in it and nothing beyond.
RESULTS, ROLE, PASSWORD = "results", "app", "of-the-app"
#: Seconds that a node which lags is behind, at most, and between two such times.
LAG, BETWEEN = 0.4, 0.02
#: Seconds in which all nodes must be one cluster again: where processors are short, they leave each other anew.
UNITED = 240
#: Seconds in which a connection of an operator gets an answer.
PATIENCE = 5


class GaleraNode(Node):
    """One node."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.server = name, server

    def url(self) -> str:
        """The URL of the results on this node alone."""
        where = f"{self.server.host}:{self.server.port}/{RESULTS}"
        return f"mysql+pymysql://{ROLE}:{PASSWORD}@{where}?ssl_disabled=true&connect_timeout=3"

    def is_synced(self) -> bool:
        """Whether it is of the part of the cluster that has the majority, and takes reads and writes.

        Raises:
            pymysql.Error: it cannot be reached.
        """
        return self.server.is_synced

    @contextmanager
    def connected(self, database: str | None = None) -> Iterator[Callable[[str], object]]:
        """What runs a statement on a connection of an operator."""
        who = {"host": self.server.host, "port": self.server.port, "user": self.server.administrator}
        how = {"autocommit": True, "ssl_disabled": True, "read_timeout": PATIENCE, "connect_timeout": PATIENCE}
        with closing(pymysql.connect(**who, **how, database=database)) as connection:
            cursor = connection.cursor()
            yield cursor.execute

    @contextmanager
    def writing(self) -> Iterator[Callable[[], object]]:
        """What commits something on a connection of its own."""
        with self.connected(RESULTS) as execute:
            yield lambda: execute(f"REPLACE INTO watch VALUES ('{self.name}', UUID())")

    @contextmanager
    def lagging(self) -> Iterator[None]:
        """It shows what was committed elsewhere up to `LAG` seconds late, and so long takes no writes itself."""
        stopped = Event()

        def hold() -> None:
            with self.connected() as execute:
                while not stopped.wait(BETWEEN):
                    execute("FLUSH TABLES WITH READ LOCK")
                    time.sleep(LAG)
                    execute("UNLOCK TABLES")

        thread = Thread(target=hold)
        thread.start()
        yield
        stopped.set()
        thread.join()

    def be_late(self, table: str) -> None:
        """Take `LAG` seconds for each row of a table that was inserted elsewhere, before all that came after it."""
        with self.connected() as execute:
            execute("SET GLOBAL slave_run_triggers_for_rbr = 'YES'")
            execute("SET SESSION wsrep_on = OFF")  # a trigger of this node alone
            execute(f"CREATE TRIGGER {table}_late BEFORE INSERT ON {table} FOR EACH ROW DO SLEEP({LAG})")


class Galera(Cluster):
    """Nodes by number.

    Args:
        proxy: options of the HAProxy in front, if there is one; else clients get the first node.
        asks: whether HAProxy is told by each node if it is synced; else it looks whether it lets somebody in.
        number: how many nodes.
    """

    def __init__(
        self, proxy: Mapping[str, Any] | None = None, *, asks: bool = True, number: int = 3, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self._proxy, self._asks = proxy, asks
        addresses = [f"{Server.host}:{free_port()}" for _ in range(number)]
        names = [f"node{place}" for place in range(number)]
        servers = (
            Server(name, own, addresses, begins=name == "node0") for name, own in zip(names, addresses, strict=True)
        )
        self.nodes: list[GaleraNode] = [GaleraNode(name, server) for name, server in zip(names, servers, strict=True)]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node.server)
                until(partial(answers, node.is_synced), "a node has joined")
            furnish(self.nodes[0].server)
            self.renew()
            self._url = self.nodes[0].url()
            if self._proxy is not None:
                self._url = stack.enter_context(self._in_front(stack, self._proxy)).leads_to(self._url)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _in_front(self, stack: ExitStack, options: Mapping[str, Any]) -> HAProxy:
        def member(node: GaleraNode) -> Member:
            asked_at = stack.enter_context(Answerer(node.is_synced)).port if self._asks else None
            return Member(node.name, node.server.port, asked_at)

        check = SAYS_YES if self._asks else ANSWERS_MARIADB
        return HAProxy([member(node) for node in self.nodes], check, balance="roundrobin", **options)

    @property
    def url(self) -> str:
        """By the first node, or through HAProxy."""
        return self._url

    @property
    def entrances(self) -> list[str]:
        """Each node is one."""
        return [self.url, *(node.url() for node in self.nodes)]

    def renew(self) -> None:
        """Empty the database of the results, on all nodes."""
        for statement in (
            f"DROP DATABASE IF EXISTS {RESULTS}",
            f"CREATE DATABASE {RESULTS}",
            f"CREATE TABLE {RESULTS}.watch (node VARCHAR(9) PRIMARY KEY, value CHAR(36))",
        ):
            self.nodes[0].server.execute(statement)

    def version(self) -> str:
        """That of the servers."""
        return f"MariaDB {self.nodes[0].server.execute('SELECT VERSION()')[0][0]}, Galera"

    def heal(self) -> None:
        """Return when all nodes run, and are one cluster."""
        until(partial(answers, self._is_whole), "all nodes are one cluster", UNITED)

    def _is_whole(self) -> bool:
        number = str(len(self.nodes))
        return all(returns(node.server) for node in self.nodes) and all(
            node.is_synced() and node.server.status("cluster_size") == number for node in self.nodes
        )

    @contextmanager
    def isolated(self, *nodes: GaleraNode) -> Iterator[None]:
        """Each of some nodes hears nobody, and is heard by nobody, for the length of the block."""
        for node in nodes:
            node.server.provide("gmcast.isolate=1")
        try:
            for node in nodes:
                until(lambda node=node: not node.is_synced(), "a node is alone")  # type: ignore[misc]
            yield
        finally:
            for node in nodes:
                node.server.provide("gmcast.isolate=0")
            self.heal()

    # -- what may befall them ------------------------------------------------------------------------------------

    def lose_one(self) -> None:
        """SIGKILL a node; it comes back and copies what is there."""
        node = self.chance.choice(self.nodes)
        node.server.kill()
        self.last()
        self.heal()

    def let_one_go(self) -> None:
        """A node leaves as planned, and comes back."""
        node = self.chance.choice(self.nodes)
        node.server.shutdown()
        self.last()
        self.heal()

    def isolate_one(self) -> None:
        """A node is alone, and clients still reach it."""
        with self.isolated(self.chance.choice(self.nodes)):
            self.last()

    def be_split(self) -> None:
        """Each is alone: nobody has a majority."""
        with self.isolated(*self.nodes):
            self.last()

    def lag(self) -> None:
        """A node is behind, again and again."""
        with self.chance.choice(self.nodes).lagging():
            self.last()

    faults: ClassVar = {
        "node killed, and back": Fault(lose_one),
        "node leaves, and returns": Fault(let_one_go, is_rough=False),
        "node isolated": Fault(isolate_one, is_rough=False),
        "nobody has a majority": Fault(be_split, is_rough=False),
        "node lags": Fault(lag, is_rough=False),
    }


def answers(question: Callable[[], bool]) -> bool:
    """The answer; no, from a server that gives none."""
    try:
        return question()
    except pymysql.Error:
        return False


def returns(server: Server) -> bool:
    """Whether a server runs; it is started if it has ended, as systemd does.

    One that joins ends by itself where whoever was to give it a copy cannot.
    """
    with suppress(RuntimeError):
        server.ensure()
        return True
    return False


def furnish(server: Server) -> None:
    """Make the role and the user of HAProxy's check."""
    for statement in (
        f"CREATE USER {ROLE} IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL PRIVILEGES ON {RESULTS}.* TO {ROLE}",
        "CREATE USER haproxy",
    ):
        server.execute(statement)
