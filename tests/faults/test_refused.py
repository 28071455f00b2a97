"""The server is there and refuses: too many clients, or read-only. Stores wait, and get through when it lets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.conftest import Loads
from faults.load import Verdict
from faults.trouble import as_role, crowded, read_only
from servers import KINDS, Database
from servers.pool import on, or_skip

databases = ("postgresql", "mariadb")
#: Connections that the server allows: those of the load, and a few.
FEW = "16"


@pytest.fixture(params=databases)
def small(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database on a server that takes few clients."""
    with or_skip(request.param), KINDS[request.param]({"max_connections": FEW}) as server:
        server.create_database("small")
        yield Database(request.param, "small", server.url("small"), server)


def test_too_many_clients(small: Database, load: Loads) -> None:
    database = as_role(small)  # the administrator has a seat of its own
    with load(database.url) as under:
        with crowded(database):
            under.stand_still()
        under.go_on()

    assert under.verdict() == Verdict()


@on(*databases)
def test_read_only_for_a_while(database: Database, load: Loads) -> None:
    """As after a failover, until the old server is the primary again."""
    mine = as_role(database)
    with load(mine.url) as under:
        with read_only(mine):
            under.stand_still()
        under.go_on()

    assert under.verdict() == Verdict()
