"""Where a crossing is tried: a fresh database as the crossing wants it, a way to it, and a look behind the backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from crossings.axes import OWN, POSTGRESQL, TENANT, Crossing, Settings
from crossings.outages import Outage, locked_out, no_outage, out_of_reach
from legacy import load
from servers import Database, PgBouncer
from servers.pool import Pool, or_skip
from servers.proxy import Proxy

#: The kind of server for a value of the axis `database`.
KIND = {"mariadb": "mariadb", "sqlite": "sqlite", "portable": "portable", **dict.fromkeys(POSTGRESQL, "postgresql")}
#: Runs one statement and returns its rows.
Look = Callable[[str], list[tuple[Any, ...]]]
#: Celery's own tables where no other release is named.
OLD = "5.4.0"


@dataclass(frozen=True)
class Place:
    """A fresh database; none where it lives in the process.

    Attributes:
        settings: those of an app that depend on the place.
        outage: keeps everybody from the database for a second, in a block.
    """

    crossing: Crossing
    database: Database | None
    settings: Settings
    outage: Outage

    @property
    def tasks(self) -> str:
        """The name of the table of tasks, as SQL has it."""
        return self._prefix + {"own-names": "results"}.get(self.crossing["names"], "celery_taskmeta")

    @property
    def groups(self) -> str:
        """The name of the table of groups."""
        own = self.crossing["names"] in ("own-names", "own-group")
        return self._prefix + ("sets" if own else "celery_tasksetmeta")

    @property
    def _prefix(self) -> str:
        if self.crossing["names"] == "own-schema":
            return f"{OWN}."
        return f"{TENANT}." if self.crossing["execution"] == "tenant" else ""

    @property
    def release(self) -> str | None:
        """The release of Celery whose rows are there."""
        value = self.crossing["tables"]
        return OLD if value == "timestamptz" else value.removeprefix("of-") if value != "new" else None


@contextmanager
def placed(crossing: Crossing, servers: Pool, folder: Path) -> Iterator[Place]:
    """Make the place of a crossing."""
    with ExitStack() as ending:
        if crossing["database"] == "sqlite-in-memory":
            yield Place(crossing, None, settings_on("sqlite://", crossing, folder), no_outage)
            return
        kind = KIND[crossing["database"]]
        with or_skip(kind):
            database = ending.enter_context(servers.database(kind))
        ending.enter_context(furnished(database, crossing))
        if kind == "sqlite":
            path = database.server.path(database.name)  # type: ignore[attr-defined]
            yield Place(crossing, database, settings_on(database.url, crossing, folder), locked_out(path))
            return
        port = ending.enter_context(gate(database, crossing)) if "pgbouncer" in crossing["way"] else None
        proxy = ending.enter_context(Proxy(port or database.server.port))
        url = sa.make_url(url_of(database, crossing)).set(port=proxy.port).render_as_string(hide_password=False)
        settings = settings_on(url, crossing, folder)
        if crossing["way"] == "pgbouncer-transaction":
            settings["database_listen_url"] = url_of(database, crossing)
        yield Place(crossing, database, settings, out_of_reach(proxy))


def url_of(database: Database, crossing: Crossing) -> str:
    """The URL of a database, with the driver of the crossing."""
    _, _, driver = crossing["database"].partition("+")
    return database.server.url(database.name, driver=driver) if driver else database.url


def settings_on(url: str, crossing: Crossing, folder: Path) -> Settings:
    """The settings for results that go to a URL."""
    settings: Settings = {"result_backend": f"sql+{url}"}
    if crossing["spool"] == "spool":
        settings["database_spool_dir"] = str(folder / "spool")
    arguments: Settings = {}
    if "pymysql" in url:
        arguments["ssl_disabled"] = True  # to read certificates takes 20 ms for each connection
    if crossing["way"] == "pgbouncer-transaction" and crossing["database"] == "postgresql+psycopg":
        arguments["prepare_threshold"] = None
    return {**settings, "database_engine_options": {"connect_args": arguments}} if arguments else settings


@contextmanager
def gate(database: Database, crossing: Crossing) -> Iterator[int]:
    """A PgBouncer in front of the server; its port."""
    mode = {"pool_mode": crossing["way"].removeprefix("pgbouncer-")}
    with or_skip("pgbouncer"), PgBouncer(database.server, mode) as bouncer:  # type: ignore[arg-type]
        yield bouncer.port


@contextmanager
def furnished(database: Database, crossing: Crossing) -> Iterator[None]:
    """The zone, the schemas and the old tables that a crossing wants."""
    with ExitStack() as ending:
        if crossing["zone"] == "server-in-Shanghai":
            ending.enter_context(in_shanghai(database))
        if crossing["execution"] == "tenant":
            database.execute(f"CREATE SCHEMA {TENANT}")
        if crossing["names"] == "own-schema":
            database.execute(f"CREATE SCHEMA {OWN}")
            if database.kind == "mariadb":  # there a schema is a database
                ending.callback(database.execute, f"DROP SCHEMA {OWN}")
        if crossing["tables"] != "new":
            old_tables(database, crossing)
        yield


@contextmanager
def in_shanghai(database: Database) -> Iterator[None]:
    """Sessions begin eight hours ahead of UTC."""
    if database.kind != "mariadb":
        database.execute(f"ALTER DATABASE {database.name} SET timezone TO 'Asia/Shanghai'")
        yield
        return
    database.execute("SET GLOBAL time_zone = '+08:00'")
    yield
    database.execute("SET GLOBAL time_zone = 'SYSTEM'")


def old_tables(database: Database, crossing: Crossing) -> None:
    """Fill the database as an old release of Celery did, or somebody who likes times with a zone."""
    release = OLD if crossing["tables"] == "timestamptz" else crossing["tables"].removeprefix("of-")
    engine = sa.create_engine(database.url, poolclass=NullPool)
    load(release, engine, "postgresql" if database.kind == "portable" else None)
    engine.dispose()
    if crossing["tables"] == "timestamptz":
        for table in ("celery_taskmeta", "celery_tasksetmeta"):
            change = "date_done TYPE timestamptz USING date_done AT TIME ZONE 'UTC'"
            database.execute(f"ALTER TABLE {table} ALTER {change}")
