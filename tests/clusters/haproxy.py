"""HAProxy, from the operating system's package: it leads to the server that passes its check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import make_url

from servers.life import Life
from servers.process import find

REMEDY = "apt-get install haproxy"

CONFIGURATION = """\
defaults
    mode tcp
    timeout connect 3s
    timeout client 1h
    timeout server 1h
    timeout check {check}ms
    timeout queue 3s
listen cluster
    bind {host}:{port}
    balance {balance}
"""


@dataclass(frozen=True)
class Member:
    """A server behind HAProxy.

    Attributes:
        name: how it is named.
        port: where it is reached.
        asked_at: the port on which its check is answered, if another.
        is_backup: it is used only while no other passes.
    """

    name: str
    port: int
    asked_at: int | None = None
    is_backup: bool = False


#: How a server is checked: lines of HAProxy's configuration.
Check = tuple[str, ...]
#: PostgreSQL answers; the primary is not told from a standby.
ANSWERS_POSTGRESQL: Check = ("option pgsql-check user postgres",)
#: MariaDB lets the user `haproxy` in, who needs no password.
ANSWERS_MARIADB: Check = ("option mysql-check user haproxy",)
#: Patroni says that it is the primary: https://patroni.readthedocs.io/en/latest/rest_api.html
IS_PRIMARY: Check = ("option httpchk GET /primary", "http-check expect status 200")
#: Whoever answers for the server over HTTP says that it may be used; see :mod:`.answerer`.
SAYS_YES: Check = ("option httpchk GET /", "http-check expect status 200")


class HAProxy(Life):
    """An HAProxy in front of servers.

    Args:
        members: the servers.
        check: how they are checked.
        every: seconds between two checks.
        fall, rise: so many failures in a row, or successes, change what is thought of a server.
        shuts: whether the connections to a server that has failed its checks are ended.
        balance: how one of those that pass is chosen.
    """

    kind = "haproxy"
    host = "127.0.0.1"
    greeting = "Loading success"  # said by a master to whom its worker has reported
    defaults: ClassVar = {}

    def __init__(
        self,
        members: Sequence[Member],
        check: Check,
        *,
        every: float = 1.0,
        fall: int = 2,
        rise: int = 1,
        shuts: bool = True,
        balance: str = "first",
    ) -> None:
        super().__init__()
        self._members, self._check, self._balance = members, check, balance
        how = f"check inter {every * 1000:.0f}ms fall {fall} rise {rise}"
        self._how = f"{how} on-marked-down shutdown-sessions" if shuts else how
        self._every = every

    def check(self) -> None:
        """Raise Missing if the package is not installed."""
        find("haproxy", REMEDY)

    def leads_to(self, url: str) -> str:
        """The URL of a database on a member, but through this."""
        return make_url(url).set(host=self.host, port=self.port).render_as_string(hide_password=False)

    def _install(self) -> None:
        general = CONFIGURATION.format(
            host=self.host, port=self.port, balance=self._balance, check=int(max(self._every, 1.0) * 1000)
        )
        lines = [*self._check, *map(self._line, self._members)]
        self._home.write("haproxy.cfg", general + "".join(f"    {line}\n" for line in lines))

    def _line(self, member: Member) -> str:
        asked = f" port {member.asked_at}" if member.asked_at else ""
        last = " backup" if member.is_backup else ""
        return f"server {member.name} {self.host}:{member.port} {self._how}{asked}{last}"

    def _command(self) -> list[str]:
        return [find("haproxy", REMEDY), "-W", "-db", "-f", str(self.folder / "haproxy.cfg")]
