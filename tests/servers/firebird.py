"""Firebird 3, from the operating system's package: a real database that the package has no impl for."""

from __future__ import annotations

import socket
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from servers.base import Server
from servers.process import Missing, find

REMEDY = "scripts/servers all; pip install sqlalchemy-firebird"
#: Where Debian and Ubuntu keep what the server loads, and what of it a folder of one's own has links to.
PROGRAMS = "usr/lib/*/firebird/3.0"
LINKED = ("firebird.msg", "intl", "plugins")
#: The script that makes the tables of the database of users.
SECURITY = Path("/usr/share/firebird/3.0/security.sql")
#: Ends all connections but the one that asks; those of the server's own threads stay.
END_OTHERS = "DELETE FROM mon$attachments WHERE mon$attachment_id <> current_connection AND mon$system_flag = 0"


class Firebird(Server):
    """A Firebird server. Its databases are files in its folder; they are spoken to in UTF-8."""

    kind = scheme = driver = "firebird"
    administrator = "SYSDBA"
    password = "masterkey"
    defaults: ClassVar = {"AuthServer": "Srp", "UserManager": "Srp", "WireCrypt": "Enabled"}

    def check(self) -> None:
        """Raise Missing if the package or the dialect is not installed."""
        for program in ("firebird", "isql-fb"):
            find(program, REMEDY)
        if find_spec("sqlalchemy_firebird") is None:
            raise Missing(f"Firebird's dialect for SQLAlchemy was not found. {REMEDY}")
        if next(Path("/").glob(PROGRAMS), None) is None:
            raise Missing(f"Firebird's programs were not found in /{PROGRAMS}. {REMEDY}")

    def _install(self) -> None:
        """Its own configuration, and its own database of users: one that is embedded asks nobody for a password."""
        programs = next(Path("/").glob(PROGRAMS))
        for name in LINKED:
            (self.folder / name).symlink_to(programs / name)
        users = self.folder / "security3.fdb"
        own = {"RemoteBindAddress": self.host, "SecurityDatabase": users, **self.settings}
        self._home.write("firebird.conf", "".join(f"{name} = {value}\n" for name, value in own.items()))
        script = [f"CREATE DATABASE '{users}';", SECURITY.read_text(), "COMMIT;"]
        script.append(f"CREATE USER {self.administrator} PASSWORD '{self.password}'; COMMIT;")
        path = self._home.write("install.sql", "\n".join(script))
        isql = [find("isql-fb", REMEDY), "-quiet", "-user", self.administrator, "-input", str(path)]
        self._home.run([*self._environment(), *isql])

    def _environment(self) -> list[str]:
        return ["env", *(f"{name}={self.folder}" for name in ("FIREBIRD", "FIREBIRD_LOCK", "FIREBIRD_TMP"))]

    def _command(self) -> list[str]:
        where = ["-p", str(self.port), "-e", str(self.folder), "-el", str(self.folder)]
        return [*self._environment(), find("firebird", REMEDY), *where]

    def _serves(self, since: int) -> bool:
        """It says nothing when it is ready."""
        with suppress(OSError), socket.create_connection((self.host, self.port)):
            return True
        return False

    def _path(self, database: str) -> Path:
        return self.folder / f"{database}.fdb"

    def url(
        self, database: str, *, user: str | None = None, password: str | None = None, driver: str | None = None
    ) -> str:
        """The SQLAlchemy URL of a database, by default as administrator."""
        path = str(self._path(database))
        return super().url(path, user=user, password=password or self.password, driver=driver) + "?charset=UTF8"

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        from firebird.driver import create_database

        create_database(self._address(name), **self._login).close()

    def drop_database(self, name: str) -> None:
        """Drop a database; connections to it are ended."""
        if not self._path(name).exists():
            return
        with closing(self._connected(name)) as connection:
            connection.execute_immediate(END_OTHERS)
            connection.commit()
            connection.drop_database()

    def _connected(self, database: str) -> Any:
        from firebird.driver import connect

        return connect(self._address(database), **self._login)

    @property
    def _login(self) -> dict[str, str]:
        return {"user": self.administrator, "password": self.password, "charset": "UTF8"}

    def _address(self, database: str) -> str:
        return f"{self.host}/{self.port}:{self._path(database)}"

    def execute(self, sql: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as administrator, in a transaction and on a connection of its own."""
        assert database is not None
        with closing(self._connected(database)) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            found = cursor.fetchall() if cursor.description else []
            connection.commit()
            return found
