"""The disk of the database is full for a while: stores wait until there is room, and get through."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.conftest import Loads
from faults.load import Verdict
from servers import KINDS, Database, Server
from servers.disk import full, mounted
from servers.pool import or_skip

#: The size of the disk: an empty database of PostgreSQL takes 8 megabytes, and the load needs some more to begin.
MEGABYTES = 24


@contextmanager
def small_disk(server: Server, name: str) -> Iterator[Path]:
    """A small disk in the folder of a server that does not survive it: whatever it would save has no place any more."""
    folder = server.folder / name
    owner = server.folder.stat()
    folder.mkdir(exist_ok=True)
    os.chown(folder, owner.st_uid, owner.st_gid)
    with mounted(folder, MEGABYTES):
        yield folder
        server.kill()


@contextmanager
def on_postgresql(server: Server) -> Iterator[tuple[str, Path]]:
    """Tables only: where its log finds no room, PostgreSQL ends itself, and that is tested elsewhere."""
    with small_disk(server, "disk") as folder:
        server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        server.execute("CREATE DATABASE small TABLESPACE small")
        yield "small", folder


@contextmanager
def on_mariadb(server: Server) -> Iterator[tuple[str, Path]]:
    """Tables only, as well: those of a database are in a folder of its name."""
    server.create_database("small")
    options = server.folder / "data" / "small" / "db.opt"
    kept = shutil.copy(options, server.folder)
    with small_disk(server, "data/small") as folder:
        shutil.copy(kept, options)
        yield "small", folder


@contextmanager
def on_sqlite(server: Server) -> Iterator[tuple[str, Path]]:
    """The file and its log."""
    with small_disk(server, "disk") as folder:
        yield "disk/small", folder


@pytest.fixture(params=[on_postgresql, on_mariadb, on_sqlite])
def small(request: pytest.FixtureRequest) -> Iterator[tuple[Database, Path]]:
    """A database whose tables are on a small disk, and the folder of the disk."""
    kind = request.param.__name__.removeprefix("on_")
    with or_skip(kind), KINDS[kind]() as server, request.param(server) as (name, folder):
        yield Database(kind, name, server.url(name), server), folder


def test_full_for_a_while(small: tuple[Database, Path], load: Loads) -> None:
    database, disk = small
    with load(database.url) as under:
        with full(disk):
            under.stand_still()
        under.go_on()

    assert under.verdict() == Verdict()
