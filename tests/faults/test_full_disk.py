"""The disk of the database is full for a while: stores wait until there is room, and get through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.conftest import Loads
from faults.disks import ON_DISK
from faults.load import Verdict
from servers import KINDS, Database
from servers.disk import full
from servers.pool import or_skip

#: The size of the disk: an empty database of PostgreSQL takes 8 megabytes, and the load needs some more to begin.
MEGABYTES = 24


@pytest.fixture(params=ON_DISK)
def small(request: pytest.FixtureRequest) -> Iterator[tuple[Database, Path]]:
    """A database on a small disk, and the folder of the disk."""
    kind = request.param
    with or_skip(kind), KINDS[kind]() as server, ON_DISK[kind](server, MEGABYTES) as (name, folder):
        yield Database(kind, name, server.url(name), server), folder


def test_full_for_a_while(small: tuple[Database, Path], load: Loads) -> None:
    database, disk = small
    with load(database.url) as under:
        with full(disk):
            under.stand_still()
        under.go_on()

    assert under.verdict() == Verdict()
