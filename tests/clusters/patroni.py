"""Patroni, from the operating system's package: two nodes of PostgreSQL that agree by etcd on who is the primary."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from typing_extensions import Self

from clusters.cluster import Fault
from clusters.etcd import Etcd
from clusters.haproxy import IS_PRIMARY, HAProxy, Member
from clusters.postgresql import SETTINGS, PostgreSQLCluster, PostgreSQLNode, furnish
from faults.load import until
from servers.life import Life
from servers.process import Missing, find, free_port
from servers.proxy import Proxy

REMEDY = "apt-get install patroni etcd-server postgresql-15"
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
#: Seconds: how long the primary's claim lasts, how often it is renewed, how long etcd is asked. The first is as short
#: as the others allow: https://patroni.readthedocs.io/en/latest/dynamic_configuration.html
TIMES = {"ttl": 7, "loop_wait": 1, "retry_timeout": 3}
HBA = [
    "host all postgres 127.0.0.1/32 trust",
    "host replication postgres 127.0.0.1/32 trust",
    "host all all 127.0.0.1/32 scram-sha-256",
]
#: What the nodes are if all is well, and how each is then.
WHOLE, RUNS = {"leader", "sync_standby"}, {"running", "streaming"}


class Patroni(Life):
    """Patroni and the PostgreSQL that it runs.

    Args:
        name: that of the node.
        front, link, rest: what others reach it through: clients, the other node's PostgreSQL, and who asks what it is.
        dcs: what it reaches etcd through.
    """

    kind = "patroni"
    greeting = "INFO: "

    def __init__(self, name: str, front: Proxy, link: Proxy, rest: Proxy, dcs: Proxy) -> None:
        super().__init__()
        self.name, self.front, self.link, self.rest, self.dcs = name, front, link, rest, dcs

    def check(self) -> None:
        """Raise Missing if the packages are not installed."""
        find("patroni", REMEDY)
        if not (PROGRAMS / "postgres").exists():
            raise Missing(f"PostgreSQL 15 was not found. {REMEDY}")

    def _install(self) -> None:
        self.front.target = self.link.target = self.port
        self.rest.target = free_port()
        self._home.write("patroni.yml", json.dumps(self._configuration()))  # which is YAML as well

    def _configuration(self) -> dict[str, Any]:
        here = "127.0.0.1"
        return {
            "scope": "results",
            "name": self.name,
            "restapi": {"listen": f"{here}:{self.rest.target}", "connect_address": f"{here}:{self.rest.port}"},
            "etcd3": {"hosts": [f"{here}:{self.dcs.port}"], "use_proxies": True},
            "bootstrap": {
                "dcs": {**TIMES, "synchronous_mode": True, "postgresql": {"parameters": SETTINGS}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}, "no-sync"],
            },
            "postgresql": {
                "listen": f"{here}:{self.port}",
                "connect_address": f"{here}:{self.link.port}",
                "data_dir": str(self.folder / "data"),
                "bin_dir": str(PROGRAMS),
                "pgpass": str(self.folder / "pgpass"),
                "pg_hba": HBA,
                "authentication": {name: {"username": "postgres"} for name in ("superuser", "replication", "rewind")},
                "use_pg_rewind": True,
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
                "parameters": {"fsync": "off", "shared_buffers": "32MB", "unix_socket_directories": str(self.folder)},
            },
        }

    def _command(self) -> list[str]:
        return [find("patroni", REMEDY), str(self.folder / "patroni.yml")]

    def kill_postgres(self) -> None:
        """SIGKILL the PostgreSQL of this node, but not Patroni."""
        os.kill(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def cluster(self) -> dict[str, tuple[str, str]]:
        """What this knows of all nodes: role and state, by name. Nothing, if it does not answer."""
        with suppress(OSError, ValueError), self._ask("cluster") as answer:
            return {member["name"]: (member["role"], member["state"]) for member in json.load(answer)["members"]}
        return {}

    def switch(self, candidate: str) -> None:
        """Hand over to another node."""
        with self._ask("switchover", {"leader": self.name, "candidate": candidate}) as answer:
            assert answer.status == 200, answer.read()

    def _ask(self, path: str, body: Mapping[str, str] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.urlopen(f"http://127.0.0.1:{self.rest.target}/{path}", data, timeout=60)


class PatroniNode(PostgreSQLNode):
    """A node, with what is between it and all others."""

    def __init__(self, name: str, stack: ExitStack, etcd: Etcd) -> None:
        front, link, rest = (stack.enter_context(Proxy(0)) for _ in range(3))
        self.dcs = stack.enter_context(Proxy(etcd.port))
        self.server = Patroni(name, front, link, rest, self.dcs)
        stack.enter_context(self.server)
        super().__init__(name, front)
        self.link, self.rest = link, rest

    def fall_silent(self, *what: Proxy) -> None:
        """Nobody gets an answer any more, or only some."""
        for proxy in what or (self.front, self.link, self.rest, self.dcs):
            proxy.silent = True

    def come_back(self) -> None:
        """Who connects gets an answer; connections that were silent are lost."""
        for proxy in (self.front, self.link, self.rest, self.dcs):
            if proxy.silent:
                proxy.cut()
                proxy.silent = False


class PatroniCluster(PostgreSQLCluster):
    """Two nodes, of which one is synchronous, behind HAProxy that asks Patroni.

    Args:
        proxy: options of HAProxy.
    """

    nodes: tuple[PatroniNode, PatroniNode]

    def __init__(self, proxy: Mapping[str, Any], seed: int | None = None) -> None:
        super().__init__(seed)
        self._proxy = proxy

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._etcd = stack.enter_context(Etcd())
            one, two = PatroniNode("one", stack, self._etcd), PatroniNode("two", stack, self._etcd)
            self.nodes = (one, two)
            members = [Member(node.name, node.front.port, node.rest.port) for node in self.nodes]
            self._haproxy = stack.enter_context(HAProxy(members, IS_PRIMARY, **self._proxy))
            self.become_whole()
            furnish(self.primary, self.nodes)
            self._stack = stack.pop_all()
        return self

    @property
    def url(self) -> str:
        """Through HAProxy."""
        return self._haproxy.leads_to(self.nodes[0].url())

    def version(self) -> str:
        """That of the servers and of Patroni."""
        with self.primary.connected() as connection:
            return f"PostgreSQL {connection.info.server_version // 10000} under Patroni"

    # -- what is known of the nodes ------------------------------------------------------------------------------

    def _with_role(self, role: str) -> PatroniNode:
        """The node that has a role: for a moment, nobody may."""
        found: list[PatroniNode] = []

        def look() -> bool:
            its = {name for node in self.nodes for name, (has, _) in node.server.cluster().items() if has == role}
            found[:] = [node for node in self.nodes if node.name in its]
            return bool(found)

        until(look, f"somebody is the {role}")
        return found[0]

    @property
    def primary(self) -> PatroniNode:
        """The node that all agree on."""
        return self._with_role("leader")

    @property
    def standby(self) -> PatroniNode:
        """The other one, on which each commit is as well."""
        return self._with_role("sync_standby")

    def become_whole(self) -> None:
        """Return when there are a primary and its synchronous standby, say both."""
        until(lambda: all(self._is_whole(node) for node in self.nodes), "the cluster is whole")

    @staticmethod
    def _is_whole(node: PatroniNode) -> bool:
        found = node.server.cluster().values()
        return {role for role, _ in found} == WHOLE and {state for _, state in found} <= RUNS

    def _leads(self, node: PatroniNode) -> None:
        """Return when a node says that it is the primary."""
        until(lambda: node.server.cluster().get(node.name, ("", ""))[0] == "leader" and writes(node), node.name)

    # -- what may befall them ------------------------------------------------------------------------------------

    def be_killed(self) -> None:
        """SIGKILL the primary and its Patroni; when it is back, hand over to it."""
        old, new = self.primary, self.standby
        old.server.kill()
        self._leads(new)
        self.last()
        old.server.restart()
        self.become_whole()
        self.switch()

    def crash(self) -> None:
        """SIGKILL the primary's PostgreSQL; Patroni starts it again or lets the other take over."""
        self.primary.server.kill_postgres()
        self.last()
        self.become_whole()

    def switch(self) -> None:
        """Let the two change places."""
        new = self.standby
        self.primary.server.switch(new.name)
        self._leads(new)
        self.become_whole()

    def be_switched(self) -> None:
        """There and back again."""
        self.switch()
        self.last()
        self.switch()

    def lose_the_primary(self) -> None:
        """Nobody gets an answer of it any more; it gives up, and the other takes over."""
        old, new = self.primary, self.standby
        old.fall_silent()
        self._leads(new)
        self.last()
        old.come_back()
        self.become_whole()

    def lose_the_standby(self) -> None:
        """It hears nothing of anybody for a while; Patroni lets the primary acknowledge alone."""
        primary, standby = self.primary, self.standby
        primary.fall_silent(primary.link)
        standby.fall_silent()
        until(lambda: WHOLE - {role for role, _ in primary.server.cluster().values()}, "the primary is alone")
        self.last()
        standby.come_back()
        primary.come_back()
        self.become_whole()

    def lag(self) -> None:
        """The standby replays nothing for a while."""
        with self.standby.connected() as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
            self.last()
            connection.execute("SELECT pg_wal_replay_resume()")

    def be_split(self) -> None:
        """The primary is cut off from etcd and from the other, but not from clients, until the other has taken over."""
        old, new = self.primary, self.standby
        old.fall_silent(old.dcs, old.link)
        self._leads(new)
        self.last()
        old.come_back()
        self.become_whole()

    def lose_etcd(self) -> None:
        """Nobody may be the primary without it."""
        old = self.primary
        self._etcd.kill()
        until(lambda: not writes(old), "the primary gives up")
        self.last()
        self._etcd.restart()
        self.become_whole()

    faults: ClassVar = {
        "primary killed, and back": Fault(be_killed),
        "PostgreSQL killed": Fault(crash),
        "planned switchovers": Fault(be_switched, is_rough=False),
        "primary isolated": Fault(lose_the_primary),
        "standby isolated": Fault(lose_the_standby, is_rough=False),
        "standby lags": Fault(lag, is_rough=False),
        "two primaries": Fault(be_split),
        "etcd killed": Fault(lose_etcd),
    }


def writes(node: PatroniNode) -> bool:
    """Whether a node takes writes."""
    try:
        return node.is_primary()
    except psycopg.Error:
        return False
