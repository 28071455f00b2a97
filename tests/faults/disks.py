"""Databases whose tables are on a small disk. Each of these yields a database's name, and the folder of its disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from servers import Server
from servers.disk import mounted


@contextmanager
def small_disk(server: Server, name: str, megabytes: int) -> Iterator[Path]:
    """A small disk in the folder of a server that does not survive it: whatever it would save has no place any more."""
    folder = server.folder / name
    owner = server.folder.stat()
    folder.mkdir(exist_ok=True)
    os.chown(folder, owner.st_uid, owner.st_gid)
    with mounted(folder, megabytes):
        yield folder
        server.kill()


@contextmanager
def on_postgresql(server: Server, megabytes: int) -> Iterator[tuple[str, Path]]:
    """Tables only: where its log finds no room, PostgreSQL ends itself, and that is tested elsewhere."""
    with small_disk(server, "disk", megabytes) as folder:
        server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        server.execute("CREATE DATABASE small TABLESPACE small")
        yield "small", folder


@contextmanager
def on_mariadb(server: Server, megabytes: int) -> Iterator[tuple[str, Path]]:
    """Tables only, as well: those of a database are in a folder of its name."""
    server.create_database("small")
    options = server.folder / "data" / "small" / "db.opt"
    kept = shutil.copy(options, server.folder) if options.exists() else None  # MySQL keeps them elsewhere
    with small_disk(server, "data/small", megabytes) as folder:
        if kept:
            shutil.copy(kept, options)
        yield "small", folder


@contextmanager
def on_sqlite(server: Server, megabytes: int) -> Iterator[tuple[str, Path]]:
    """The file and its log."""
    with small_disk(server, "disk", megabytes) as folder:
        yield "disk/small", folder


ON_DISK: Mapping[str, Callable[[Server, int], AbstractContextManager[tuple[str, Path]]]] = {
    "postgresql": on_postgresql,
    "mariadb": on_mariadb,
    "sqlite": on_sqlite,
}
