"""MariaDB, from the operating system's package, and what its family has in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from servers.base import Server
from servers.process import Missing, find

REMEDY = "apt-get install mariadb-server; pip install pymysql"


class MariaDB(Server):
    """A MariaDB server with its own defaults, so with latin1 as the character set unless told otherwise.

    The administrator `root` needs no password; every other role's password is checked.
    """

    kind = "mariadb"
    scheme = "mysql"
    driver = "pymysql"
    administrator = "root"
    account = "mysql"
    remedy: ClassVar = REMEDY
    #: The folder that its programs lie in, where it is not the usual one, and that of its messages in there.
    prefix: ClassVar[Path | None] = None
    messages: ClassVar = "share/mariadb"
    #: The server, in that folder; what fills the folder of a new one, and how it is told to.
    program: ClassVar = "sbin/mariadbd"
    installer: ClassVar = "bin/mariadb-install-db"
    how_to_install: ClassVar = ("--skip-test-db", "--auth-root-authentication-method=normal")
    lacks: ClassVar = {
        **dict.fromkeys(("super_read_only", "offline_mode"), "This is MySQL's; MariaDB has read_only."),
        "innodb_force_recovery": "MariaDB takes writes then.",
    }
    #: Which connections there are.
    processes: ClassVar = "information_schema.processlist"
    greeting = "ready for connections"
    defaults: ClassVar = {
        "aria_pagecache_buffer_size": "8M",
        "bind_address": Server.host,
        "innodb_buffer_pool_size": "32M",
        "innodb_flush_log_at_trx_commit": "2",
        "innodb_log_file_size": "32M",
        "key_buffer_size": "1M",
        "max_connections": "300",
    }

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self._own_connections: set[int] = set()

    def check(self) -> None:
        """Raise Missing if the package or the driver is not installed."""
        self._find(self.program)
        self._find(self.installer)
        if find_spec("pymysql") is None:
            raise Missing(f"The driver of MariaDB and MySQL was not found. {REMEDY}")

    def _find(self, path: str) -> str:
        if self.prefix is None:
            return find(Path(path).name, self.remedy)
        if not (self.prefix / path).exists():
            raise Missing(f"{self.prefix / path} was not found. {self.remedy}")
        return str(self.prefix / path)

    def _arguments(self) -> list[str]:
        own = {"datadir": self.folder / "data", "tmpdir": self.folder}  # a starting server empties a shared tmpdir
        settings = {**own, **self._places(), **self.settings}
        return ["--no-defaults", *(f"--{name}={value}" for name, value in settings.items())]

    def _places(self) -> dict[str, Path]:
        """Where what its programs need lies, if that is not where they look for it."""
        if self.prefix is None:
            return {}
        own = {"plugin_dir": self.prefix / "lib/mysql/plugin", "lc_messages_dir": self.prefix / self.messages}
        return {"basedir": self.prefix, **own}

    def _install(self) -> None:
        self._home.run([self._find(self.installer), *self._arguments(), *self.how_to_install])

    def _command(self) -> list[str]:
        own = [f"--port={self.port}", f"--socket={self.folder / 'socket'}", f"--pid-file={self.folder / 'pid'}"]
        return [self._find(self.program), *self._arguments(), *own]

    def execute(self, sql: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as administrator, in autocommit on a connection of its own, and return its rows."""
        import pymysql

        how = {"charset": "utf8mb4", "autocommit": True, "ssl_disabled": True}  # to read certificates takes 20 ms
        who = {"host": self.host, "port": self.port, "user": self.administrator}
        with closing(pymysql.connect(**who, **how, database=database)) as connection:
            self._own_connections.add(connection.thread_id())
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        self.execute(f"CREATE DATABASE `{name}`")

    def drop_database(self, name: str) -> None:
        """Drop a database, its open connections and the roles that were created for it."""
        self._disconnect(name)
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")
        for role in self._roles.pop(name, []):
            self.execute(f"DROP USER `{role}`")

    def _disconnect(self, database: str) -> None:
        """End all connections to a database: an open transaction would make DROP wait for a day."""
        from pymysql.err import OperationalError

        for (connection,) in self.execute(f"SELECT id FROM {self.processes} WHERE db = '{database}'"):
            with suppress(OperationalError):  # ended by itself meanwhile
                self.execute(f"KILL {connection}")

    def create_role(self, name: str, password: str, database: str, *, ddl: bool, write: bool = True) -> None:
        """Create a user with rights in one database; with `ddl` it may alter everything there."""
        rights = "ALL PRIVILEGES" if ddl else "SELECT, INSERT, UPDATE, DELETE" if write else "SELECT"
        self.execute(f"CREATE USER `{name}` IDENTIFIED BY '{password}'")
        self._roles.setdefault(database, []).append(name)
        pattern = database.replace("_", r"\_")
        self.execute(f"GRANT {rights} ON `{pattern}`.* TO `{name}`")

    @contextmanager
    def statements(self, database: str) -> Iterator[list[str]]:
        """Collect statements, also those of connections that are already open; the protocol's ping is `PING`."""
        seen: list[str] = []
        self.execute("TRUNCATE mysql.general_log")
        self._own_connections.clear()
        connections = dict(self.execute(f"SELECT id, db FROM {self.processes}"))
        self.execute("SET GLOBAL log_output = 'TABLE', general_log = ON")
        try:
            yield seen
        finally:
            self.execute("SET GLOBAL general_log = OFF")
        log = self.execute("SELECT thread_id, command_type, CONVERT(argument USING utf8mb4) FROM mysql.general_log")
        seen += (text for connection, text in self._read(log, connections) if connection == database)

    def _read(
        self, log: list[tuple[int, str, str]], databases: dict[int, str | None]
    ) -> Iterator[tuple[str | None, str]]:
        """The statements of others with the database that each was meant for."""
        for connection, command, argument in log:
            if command == "Connect":
                found = re.search(r" on (\S*) using ", argument)
                databases[connection] = found[1] if found else None
            elif command == "Init DB":
                databases[connection] = argument
            elif argument == "SELECT @@session.autocommit":
                continue  # mysql-connector asks that by itself
            elif command in {"Query", "Execute", "Ping"} and connection not in self._own_connections:
                yield databases.get(connection), argument or command.upper()

    def errors(self, database: str | None = None) -> list[str]:
        """The lines marked [ERROR]; MariaDB neither names a database nor logs that a statement failed."""
        return [line for line in self.logged().splitlines() if "[ERROR]" in line]
