"""HAProxy leads to who passes its check, and ends sessions if it is told to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from clusters.answerer import Answerer
from clusters.haproxy import ANSWERS_POSTGRESQL, SAYS_YES, HAProxy, Member
from faults.load import until
from servers import Database
from servers.pool import or_skip
from servers.proxy import Proxy


class Place:
    """Two ways to one database, of which one passes its check."""

    def __init__(self, database: Database, stack: ExitStack) -> None:
        self.open, self.url, self._stack = 0, database.url, stack
        self.ways = [stack.enter_context(Proxy(database.server.port)) for _ in range(2)]
        asked = [stack.enter_context(Answerer(lambda number=number: number == self.open)) for number in range(2)]
        self.members = [
            Member(f"way{number}", way.port, answerer.port)
            for number, (way, answerer) in enumerate(zip(self.ways, asked, strict=True))
        ]

    def haproxy(self, **options: object) -> HAProxy:
        """An HAProxy that asks whether a way is open."""
        with or_skip("haproxy"):
            return self._stack.enter_context(HAProxy(self.members, SAYS_YES, every=0.1, **options))

    def connect(self, haproxy: HAProxy) -> sa.Connection:
        """A connection through it."""
        engine = sa.create_engine(haproxy.leads_to(self.url), poolclass=sa.NullPool)
        return self._stack.enter_context(engine.connect())


@pytest.fixture
def place(postgresql: Database) -> Iterator[Place]:
    """Two ways to a database."""
    with ExitStack() as stack:
        yield Place(postgresql, stack)


def is_alive(connection: sa.Connection) -> bool:
    """Whether a connection is still there."""
    try:
        return connection.scalar(sa.text("SELECT 1")) == 1
    except sa.exc.DBAPIError:
        return False


def test_sessions_are_ended_as_soon_as_a_check_fails(place: Place) -> None:
    haproxy = place.haproxy()
    until(lambda: accepts(haproxy), "a check has passed")
    connection = place.connect(haproxy)
    assert is_alive(connection)
    place.open = 1
    until(lambda: not is_alive(connection), "the session is ended")
    until(lambda: accepts(haproxy), "the other way is open")


def test_sessions_stay_where_they_are(place: Place) -> None:
    haproxy = place.haproxy(shuts=False)
    until(lambda: accepts(haproxy), "a check has passed")
    connection = place.connect(haproxy)
    place.open = 1
    place.ways[0].silent = True  # a new connection that gets an answer has gone the other way
    until(lambda: accepts(haproxy), "the other way is open")
    place.ways[0].silent = False
    assert is_alive(connection)


def test_a_server_that_does_not_answer_is_left(place: Place) -> None:
    ways = [Member(member.name, member.port) for member in place.members]
    with or_skip("haproxy"), HAProxy(ways, ANSWERS_POSTGRESQL, every=0.1) as haproxy:
        place.ways[0].silent = True
        until(lambda: accepts(haproxy), "the other way is open")


def accepts(haproxy: HAProxy) -> bool:
    """Whether PostgreSQL answers a new connection: to a question for encryption, with one letter."""
    try:
        with socket.create_connection((haproxy.host, haproxy.port), timeout=0.5) as connection:
            connection.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
            return connection.recv(1) in {b"N", b"S"}
    except OSError:
        return False
