"""A primary and its synchronous standby, which change places when somebody says so."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

from typing_extensions import Self

from clusters.answerer import Answerer
from clusters.cluster import Fault
from clusters.haproxy import SAYS_YES, HAProxy, Member
from clusters.postgresql import SETTINGS, PostgreSQLCluster, PostgreSQLNode, furnish, several_hosts
from faults.load import until
from servers import PostgreSQL
from servers.proxy import Proxy


class Server(PostgreSQL):
    """One of the two. Its data may be made anew, as those of a standby of the other."""

    greeting = "ready to accept"

    def __init__(self, source: int | None = None) -> None:
        super().__init__(SETTINGS)
        self._source = source

    def _install(self) -> None:
        if self._source is None:
            super()._install()
        else:
            self.copy_from(self._source)

    def follow(self, port: int) -> None:
        """Start as a standby of the server on a port, with the data that there are, which it has as well."""
        signal = self._data / "standby.signal"
        signal.touch()
        shutil.chown(signal, self._data.owner(), self._data.group())
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = 'host={self.host} port={port} user={self.administrator}'\n")
        self.restart()

    def copy_again(self, port: int) -> None:
        """Start as a standby of the server on a port, with a copy of its data."""
        self.kill()
        self.give_back()
        shutil.rmtree(self._data)
        self.copy_from(port)
        self.restart()

    def configure(self, **settings: str) -> None:
        """Change settings while it runs."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")
        until(lambda: all(self.execute(f"SHOW {name}") == [(value,)] for name, value in settings.items()), "settings")


class PairNode(PostgreSQLNode):
    """One of the two, with what is between it and others: clients at its `front`, at its `link` who copies from it."""

    def __init__(self, name: str, stack: ExitStack, other: PairNode | None = None) -> None:
        self.server = stack.enter_context(Server(other and other.link.port))
        self.link = stack.enter_context(Proxy(self.server.port))
        super().__init__(name, stack.enter_context(Proxy(self.server.port)))
        self.asked_at = stack.enter_context(Answerer(self.is_primary)).port

    def fall_silent(self) -> None:
        """Nobody gets an answer any more."""
        self.front.silent = self.link.silent = True

    def come_back(self) -> None:
        """Who connects gets an answer; connections that were open are lost."""
        for proxy in (self.front, self.link):
            proxy.cut()
            proxy.silent = False


class Pair(PostgreSQLCluster):
    """The two, and an operator who promotes the standby when the primary has failed.

    A server that is alone acknowledges alone; else each commit is on both before it is acknowledged.

    Args:
        proxy: options of the HAProxy in front, if there is one; else clients are given several hosts.
    """

    def __init__(self, proxy: Mapping[str, Any] | None = None, seed: int | None = None) -> None:
        super().__init__(seed)
        self._proxy = proxy

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            first = PairNode("one", stack)
            second = PairNode("two", stack, first)
            self.nodes = (first, second)
            self.primary, self.standby = self.nodes
            self._url = several_hosts(self.nodes)
            if self._proxy is not None:
                members = [Member(node.name, node.front.port, node.asked_at) for node in self.nodes]
                haproxy = stack.enter_context(HAProxy(members, SAYS_YES, **self._proxy))
                self._url = haproxy.leads_to(first.url())
            self._wait_for_each_other()
            furnish(first, self.nodes)
            self._stack = stack.pop_all()
        return self

    @property
    def url(self) -> str:
        """By several hosts, or through HAProxy."""
        return self._url

    def version(self) -> str:
        """That of the servers."""
        ((version,),) = self.primary.server.execute("SHOW server_version")
        return f"PostgreSQL {version}"

    # -- what an operator does -----------------------------------------------------------------------------------

    def promote(self) -> None:
        """Make the standby the primary, which is alone then."""
        server = self.standby.server
        server.configure(synchronous_standby_names="")
        assert server.execute("SELECT pg_promote()") == [(True,)]
        self.primary, self.standby = self.standby, self.primary

    def switch(self) -> None:
        """Let the two change places, as planned. For a moment both are standbys."""
        self.primary.server.shutdown()
        self.standby.server.configure(synchronous_standby_names="")
        self.primary.server.follow(self.standby.link.port)
        self.promote()
        self._wait_for_each_other()

    def rejoin(self) -> None:
        """Let the old primary, which may have what nobody else has, become the standby of the new one."""
        self.standby.server.copy_again(self.primary.link.port)
        self._wait_for_each_other()

    def _wait_for_each_other(self) -> None:
        query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        until(lambda: self.primary.server.execute(query) == [(1,)], "the standby follows")
        self.primary.server.configure(synchronous_standby_names="*")

    # -- what may befall them ------------------------------------------------------------------------------------

    def be_killed(self) -> None:
        """SIGKILL the primary, promote the standby, and switch back."""
        self.primary.server.kill()
        self.last()
        self.promote()
        self.last()
        self.rejoin()
        self.switch()

    def be_switched(self) -> None:
        """There and back again."""
        self.switch()
        self.last()
        self.switch()

    def lose_the_primary(self) -> None:
        """Nobody gets an answer of it any more; it is replaced, and ended before it can be reached again."""
        self.primary.fall_silent()
        self._replace()

    def lose_the_standby(self) -> None:
        """It hears nothing of the primary for a while, and no commit is acknowledged."""
        self.primary.link.silent = True
        self.last()
        self.primary.link.silent = False
        self.primary.link.cut()
        self._wait_for_each_other()

    def lag(self) -> None:
        """The standby replays nothing for a while, and in the second half of that a commit waits until it has."""
        self.standby.server.execute("SELECT pg_wal_replay_pause()")
        self.last()
        self.primary.server.configure(synchronous_commit="remote_apply")
        self.last()
        self.standby.server.execute("SELECT pg_wal_replay_resume()")
        self.primary.server.configure(synchronous_commit="on")

    def be_split(self) -> None:
        """The standby is promoted while clients reach the primary, which does not know, and is ended later."""
        self.primary.link.silent = True
        self._replace()

    def _replace(self) -> None:
        """Promote the standby after a while; the old primary is ended later, before all can reach it again."""
        old = self.primary
        self.last()
        self.promote()
        self.last()
        old.server.kill()
        old.come_back()
        self.rejoin()

    faults: ClassVar = {
        "primary killed, and back": Fault(be_killed),
        "planned switchovers": Fault(be_switched, is_rough=False),
        "primary isolated": Fault(lose_the_primary),
        "standby isolated": Fault(lose_the_standby, is_rough=False),
        "standby lags": Fault(lag, is_rough=False),
        "two primaries": Fault(be_split),
    }
