"""A hot standby of a PostgreSQL server, which can be promoted."""

from __future__ import annotations

from pathlib import Path

from servers.postgresql import PostgreSQL

#: The settings of a server that has a standby.
PRIMARY = {"wal_level": "replica", "max_wal_senders": "5"}


class Standby(PostgreSQL):
    """A copy of a running server, made with `PRIMARY`, that follows it and only reads."""

    greeting = "ready to accept"

    def __init__(self, primary: PostgreSQL) -> None:
        super().__init__()
        self._primary = primary
        self.driver = primary.driver

    @property
    def programs(self) -> Path:
        """Those of its primary."""
        return self._primary.programs

    def _install(self) -> None:
        self.copy_from(self._primary.port)

    def catch_up(self) -> None:
        """Return when everything is here that the primary has committed, also what did not wait for the disk."""
        self._primary.execute("SELECT pg_logical_emit_message(true, 'servers', '')")  # whose commit does
        ((position,),) = self._primary.execute("SELECT pg_current_wal_lsn()::text")
        while self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != [(True,)]:
            pass

    def promote(self) -> None:
        """Make it a primary of its own."""
        assert self.execute("SELECT pg_promote()") == [(True,)]
