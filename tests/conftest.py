"""Fixtures for all tests: fresh databases on real servers, backends on them, and what the servers are asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool as ConnectionPool

from celery_sql_results import DatabaseBackend
from concurrency.nursery import Nursery
from servers import KINDS, RELEASES, Database, PgBouncer, PostgreSQL, Redis, use
from servers.pool import ALL, Pool, on, or_skip
from summary import pytest_terminal_summary
from support import Backends, Statements, app_on, closed_at_the_end

__all__ = ["pytest_terminal_summary"]  # a hook


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--on mysql-9.7` or `--on postgresql:psycopg2`: on that server, with that driver, and only what concerns it."""
    parser.addoption(
        "--on", metavar="SERVER[:DRIVER]", help=f"a server in the place of its kind: {', '.join((*RELEASES, *KINDS))}"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A kind that is not among those of `database` by default stands in the place of all of them."""
    chosen, marks = metafunc.config.getoption("--on"), metafunc.definition.iter_markers("parametrize")
    is_open = "database" in metafunc.fixturenames and all("database" not in mark.args[0] for mark in marks)
    if chosen and is_open and (kind := use(chosen)) not in ALL:
        metafunc.definition.add_marker(on(kind))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `--on` has nothing to do with."""
    chosen = config.getoption("--on")
    if chosen is None:
        return
    kind = use(chosen)
    driver = KINDS[kind].driver
    if driver == "pg8000":  # it leaves the socket of a connection open that was cut, and Python complains of it
        config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")

    def concerns(item: pytest.Item) -> bool:
        if any(driver not in marker.args for marker in item.iter_markers("drivers")):
            return False
        callspec = getattr(item, "callspec", None)
        fixtures = {kind, f"{kind}_release"} & set(getattr(item, "fixturenames", ()))
        return bool(fixtures) or kind in (callspec.params.values() if callspec else ())

    left_out = [item for item in items if not concerns(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if concerns(item)]


@pytest.fixture(scope="session", autouse=True)
def engine_way() -> None:
    """With `WITHOUT_QUICK_PATH=1`, all statements of this process go SQLAlchemy's own way: somebody listens to them."""
    if os.environ.get("WITHOUT_QUICK_PATH") == "1":
        event.listen(Engine, "before_cursor_execute", lambda *_: None)


@pytest.fixture(scope="session")
def servers() -> Iterator[Pool]:
    """The servers of this test process; `servers.server("redis")` starts one that is not running yet."""
    with Pool() as pool:
        yield pool


def fresh(servers: Pool, kind: str) -> Iterator[Database]:
    """A fresh database for one test."""
    with or_skip(kind), servers.database(kind) as database:
        yield database


@pytest.fixture(params=ALL)
def database(request: pytest.FixtureRequest, servers: Pool) -> Iterator[Database]:
    """A fresh, empty database of every kind in turn; `servers.pool.on` narrows it down, `without` leaves one out."""
    for left_out in request.node.iter_markers("without"):
        if request.param == left_out.args[0]:
            pytest.skip(left_out.kwargs["reason"])
    yield from fresh(servers, request.param)


@pytest.fixture
def postgresql(servers: Pool) -> Iterator[Database]:
    """A fresh, empty database on PostgreSQL."""
    yield from fresh(servers, "postgresql")


@pytest.fixture(scope="session")
def postgresql_release() -> type[PostgreSQL]:
    """PostgreSQL as `--on` has chosen it, for those who start servers with settings of their own."""
    release = KINDS["postgresql"]
    assert issubclass(release, PostgreSQL)
    return release


@pytest.fixture
def mariadb(servers: Pool) -> Iterator[Database]:
    """A fresh, empty database on MariaDB."""
    yield from fresh(servers, "mariadb")


@pytest.fixture
def sqlite(servers: Pool) -> Iterator[Database]:
    """A fresh, empty database on SQLite."""
    yield from fresh(servers, "sqlite")


@pytest.fixture
def pgbouncer(postgresql: Database) -> Iterator[Database]:
    """The database of `postgresql`, reached through PgBouncer in transaction mode."""
    assert isinstance(postgresql.server, PostgreSQL)
    with or_skip("pgbouncer"), PgBouncer(postgresql.server) as bouncer:
        yield replace(postgresql, kind="pgbouncer", url=bouncer.url(postgresql.name))


@pytest.fixture
def redis(servers: Pool) -> Redis:
    """A Redis server that holds nothing; its URL serves as a broker or as a result backend."""
    with or_skip("redis"):
        server = servers.server("redis")
    assert isinstance(server, Redis)
    server.clear()
    return server


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that others are forked from."""
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def backends(database: Database) -> Iterator[Backends]:
    """Makes backends: `backends(result_extended=True)` is one of an app of its own with that setting.

    They are on the test's database unless `url` says otherwise.
    """
    with closed_at_the_end() as made:

        def make(url: str | None = None, **settings: Any) -> DatabaseBackend:
            made.append(app_on(url or database.url, **settings).backend)
            return made[-1]

        yield make


@pytest.fixture
def backend(backends: Backends) -> DatabaseBackend:
    """A backend with the defaults."""
    return backends()


@pytest.fixture
def statements(database: Database) -> Iterator[Statements]:
    """`with statements() as seen: …` fills `seen` with what the server was asked meanwhile; on SQLite, what SQLite was.

    Ask for it before a backend: SQLite tells only connections that are opened after.
    """
    if database.kind != "sqlite":
        yield database.statements
        return
    seen: list[str] = []

    def trace(connection: Any, _record: object) -> None:
        connection.set_trace_callback(seen.append)

    @contextmanager
    def collect() -> Iterator[list[str]]:
        seen.clear()
        block: list[str] = []
        yield block
        block += seen

    event.listen(ConnectionPool, "connect", trace)
    yield collect
    event.remove(ConnectionPool, "connect", trace)
