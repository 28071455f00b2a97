"""The servers of one test process: each started when it is first asked for, and a fresh database for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest
from typing_extensions import Self

from servers import KINDS, Database, Missing, Server

#: What `database` is by default: every kind, and PostgreSQL under a name that nobody knows.
ALL = ("postgresql", "mariadb", "sqlite", "portable")

#: How the reason begins when a test is skipped because a server is missing.
MISSING = "server missing: "


def on(*kinds: str) -> pytest.MarkDecorator:
    """Parametrise a test's `database` over some kinds only: `@on("postgresql", "mariadb")`."""
    return pytest.mark.parametrize("database", kinds, indirect=True)


def without(kind: str, reason: str) -> pytest.MarkDecorator:
    """Leave out a kind, which cannot do what a test is about: `@without("firebird", "it has no schemas")`."""
    return pytest.mark.without(kind, reason=reason)


@contextmanager
def or_skip(kind: str) -> Iterator[None]:
    """Skip the test when a server turns out to be missing; in CI, fail."""
    try:
        yield
    except Missing as missing:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"{MISSING}{kind}. {missing}")


def needs(database: Database, ability: str) -> None:
    """Skip the test if its server lacks something that others of its kind have."""
    if ability in database.server.lacks:
        pytest.skip(database.server.lacks[ability])


class Pool:
    """Servers by kind, started lazily and ended together; a context manager."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        self._ending = ExitStack()
        self._numbers = count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def server(self, kind: str) -> Server:
        """The server of a kind, running.

        Raises:
            Missing: its programs are not installed.
        """
        if kind not in self._servers:
            self._servers[kind] = self._ending.enter_context(KINDS[kind]())
        self._servers[kind].ensure()
        return self._servers[kind]

    @contextmanager
    def database(self, kind: str) -> Iterator[Database]:
        """A fresh, empty database of a kind, or `portable`, which is dropped afterwards."""
        server = self.server("postgresql" if kind == "portable" else kind)
        name = f"test_{next(self._numbers)}"
        url = server.url(name)
        if kind == "portable":
            url = url.replace(server.scheme, kind, 1)
        server.create_database(name)
        server.mark()
        try:
            yield Database(kind, name, url, server)
        finally:
            server.ensure()
            server.drop_database(name)
