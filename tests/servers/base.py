"""The contract of a server, and a database on one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import URL

from servers.life import Life


class Unsupported(Exception):
    """This kind of server has no such ability."""


class Server(Life):
    """A real server on loopback, private to one temporary folder.

    `settings` are the server's own, by their own names, and go over the defaults, which are made for tests: quick, and
    not durable against a power cut.
    """

    host = "127.0.0.1"
    #: What the URL begins with, and the driver that it names unless told otherwise.
    scheme: ClassVar[str]
    driver: str = ""
    administrator: ClassVar[str] = ""
    #: What others of its kind have and this one has not, and the reason that is given for a test that needs it.
    lacks: ClassVar[Mapping[str, str]] = {}

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self._roles: dict[str, list[str]] = {}

    def url(
        self, database: str, *, user: str | None = None, password: str | None = None, driver: str | None = None
    ) -> str:
        """The SQLAlchemy URL of a database, by default as administrator with the usual driver."""
        name = f"{self.scheme}+{driver or self.driver}"
        url = URL.create(name, user or self.administrator, password, self.host, self.port, database)
        return url.render_as_string(hide_password=False)

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        raise Unsupported(f"{self.kind} has no databases to create.")

    def drop_database(self, name: str) -> None:
        """Drop a database, its open connections and the roles that were created for it."""
        raise Unsupported(f"{self.kind} has no databases to drop.")

    def execute(self, sql: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as administrator, in autocommit on a connection of its own, and return its rows."""
        raise Unsupported(f"{self.kind} runs no SQL.")

    def create_role(self, name: str, password: str, database: str, *, ddl: bool, write: bool = True) -> None:
        """Create a role that may use the existing and the future tables and sequences of `database`.

        With `ddl` it may also create objects of its own; without, it can neither create nor alter anything, not even a
        temporary table. Without `write` it may only read. The role goes when its database is dropped.
        """
        raise Unsupported(f"{self.kind} has no roles.")

    def errors(self, database: str | None = None) -> list[str]:
        """The messages of the server's own log that report errors, since the start or the last `mark`.

        Those of other databases are left out if the log can tell.
        """
        return []

    def statements(self, database: str) -> AbstractContextManager[list[str]]:
        """Collect every statement that the server gets for `database` during the block, in order of arrival.

        The list is filled when the block ends. The administrator's own (`execute`) are left out. One block at a time.
        """
        raise Unsupported(f"{self.kind} does not log statements.")


@dataclass(frozen=True)
class Database:
    """One fresh database for one test."""

    kind: str
    name: str
    url: str
    server: Server

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement as administrator and return its rows."""
        return self.server.execute(sql, database=self.name)

    def statements(self) -> AbstractContextManager[list[str]]:
        """Collect the statements that the server gets for this database during the block."""
        return self.server.statements(self.name)

    def errors(self) -> list[str]:
        """What the server's log has reported since this database was created."""
        return self.server.errors(self.name)
