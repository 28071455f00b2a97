"""The server that is written to is not the primary any more: what is stored reaches the one that is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from celery.exceptions import BackendStoreError
from celery.result import AsyncResult, GroupResult
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from celery_sql_results import DatabaseBackend, DatabaseUnusable
from celery_sql_results.dialects import impl_for
from faults.conftest import Backends
from faults.load import until
from faults.trouble import as_role, proxied, read_only
from servers import PRIMARY, Database, PostgreSQL, Standby
from servers.pool import on, or_skip
from servers.process import free_port
from servers.proxy import Proxy
from support import close, request

#: A write gets one attempt, and one more where the connection was lost.
ONCE = {"result_backend_max_retries": 0}


@pytest.fixture(scope="module")
def primary(postgresql_release: type[PostgreSQL]) -> Iterator[PostgreSQL]:
    """A server that may have standbys."""
    with or_skip("postgresql"), postgresql_release(PRIMARY) as server:
        server.create_database("results")
        yield server


@pytest.fixture
def proxy(primary: PostgreSQL) -> Iterator[Proxy]:
    """Where apps find the primary."""
    primary.ensure()
    with Proxy(primary.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def lasting(primary: PostgreSQL) -> Iterator[Standby]:
    """A standby for those who do not promote it."""
    primary.ensure()
    with Standby(primary) as standby:
        yield standby


@pytest.fixture
def standby(primary: PostgreSQL) -> Iterator[Standby]:
    """A standby of the primary, on which the tables are, but for what others store later."""
    primary.ensure()
    with Standby(primary) as standby:
        yield standby


def through(proxy: Proxy, primary: PostgreSQL, driver: str = "psycopg") -> str:
    """The URL of the results."""
    return make_url(primary.url("results", driver=driver)).set(port=proxy.port).render_as_string(hide_password=False)


def on_standby(backend: DatabaseBackend, proxy: Proxy, standby: Standby) -> None:
    """Let the connections of a backend be those of a standby, as while a proxy has not noticed yet."""
    backend.store_result("before", 1, states.SUCCESS)
    standby.catch_up()
    proxy.target = standby.port
    proxy.cut()
    assert backend.get_result("before") == 1


def store(backend: DatabaseBackend) -> None:
    backend.store_result("t", 2, states.SUCCESS)


def store_part(backend: DatabaseBackend) -> None:
    backend.mark_as_done("t", 2, request=request("t", chord={"task": "shop.total"}, group_index=0))


def size_chord(backend: DatabaseBackend) -> None:
    backend.set_chord_size("g", 2)


def save_group(backend: DatabaseBackend) -> None:
    GroupResult("g", [AsyncResult("t", app=backend.app)], app=backend.app).save(backend=backend)


def forget(backend: DatabaseBackend) -> None:
    backend.forget("before")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("write", [store, store_part, save_group, forget, size_chord], ids=lambda write: write.__name__)
def test_a_proxy_that_notices_late(
    primary: PostgreSQL,
    lasting: Standby,
    proxy: Proxy,
    backends: Backends,
    write: Callable[[DatabaseBackend], None],
    driver: str,
) -> None:
    """What meets a standby closes its connection, so that the next one reaches the primary."""
    pytest.importorskip(driver)
    backend = backends(through(proxy, primary, driver), **ONCE)
    on_standby(backend, proxy, lasting)
    proxy.target = primary.port  # connections that are open stay where they are
    write(backend)
    close(backend)


def kill(standby: Standby) -> None:
    standby.kill()


def promote(standby: Standby) -> None:
    standby.promote()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("happens", [promote, kill], ids=lambda happens: happens.__name__)
@pytest.mark.parametrize(
    "question",
    ["SELECT * FROM celery_taskmeta_waiters", "SELECT pg_current_wal_lsn()"],
    ids=["not-logged", "position"],
)
def test_a_standby_that_is_none_any_more_when_it_is_asked(
    primary: PostgreSQL,
    standby: Standby,
    proxy: Proxy,
    backends: Backends,
    question: str,
    happens: Callable[[Standby], None],
    driver: str,
) -> None:
    """What it has said before is still known to be said by a standby, so that the write is tried again."""
    pytest.importorskip(driver)
    backend = backends(through(proxy, primary, driver), **ONCE)
    on_standby(backend, proxy, standby)
    engine = sa.create_engine(standby.url("results", driver=driver), poolclass=sa.NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(sa.exc.DBAPIError) as told:
            connection.exec_driver_sql(question)
        happens(standby)
        orig, asked = told.value.orig, connection.connection.dbapi_connection
        assert orig is not None
        assert impl_for("postgresql").is_demoted(orig, asked)
    close(backend)


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread, which has ended without an error when the block has."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test reports it, whatever it is
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    assert errors == []


def retried(caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    """Whether a write has been tried in vain more than once."""
    caplog.set_level(logging.DEBUG, "celery_sql_results.writing.retry")
    return lambda: "; retry " in caplog.text


@pytest.mark.parametrize("settings", [{}, {"database_listen": False}], ids=["listening", "polling"])
def test_promoted_while_a_result_is_stored(
    primary: PostgreSQL,
    standby: Standby,
    proxy: Proxy,
    backends: Backends,
    settings: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is tried again until there is a primary, and nothing is raised."""
    backend = backends(through(proxy, primary), **settings)
    on_standby(backend, proxy, standby)
    with meanwhile(lambda: store(backend)):
        until(retried(caplog), "the store is tried again")
        standby.promote()

    assert backend.get_result("t") == 2
    assert standby.execute("SELECT task_id FROM celery_taskmeta WHERE task_id = 't'", database="results") == [("t",)]
    close(backend)


def test_promoted_before_it_is_asked(primary: PostgreSQL, standby: Standby, backends: Backends) -> None:
    """An error that only a standby gives has been one of a standby, though the server says that it is none now."""
    impl = backends(primary.url("results")).database.impl
    standby.catch_up()
    with sa.create_engine(standby.url("results"), poolclass=sa.NullPool).connect() as connection:
        with pytest.raises(DBAPIError) as told:
            connection.exec_driver_sql("SELECT * FROM celery_taskmeta_waiters")
        connection.rollback()
        standby.promote()
        in_english = told.value.orig
        assert in_english is not None
        in_german = type(in_english)(
            "während der Wiederherstellung kann nicht auf temporäre Tabellen zugegriffen werden"
        )
        soon = [impl.is_demoted(orig, connection.connection) for orig in (in_english, in_german)]
        connection.rollback()
        standby.execute("SELECT pg_logical_emit_message(false, 'tests', repeat('x', 20000000))", database="results")
        later = [impl.is_demoted(orig, connection.connection) for orig in (in_english, in_german)]

    assert (soon, later) == ([True, True], [True, False])


def test_an_app_that_starts_on_a_standby(
    primary: PostgreSQL, standby: Standby, proxy: Proxy, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first result waits for the promotion; then it uses all that there is."""
    close(backends(through(proxy, primary)))
    standby.catch_up()
    proxy.target = standby.port
    backend = backends(through(proxy, primary))
    with meanwhile(lambda: store(backend)):
        until(retried(caplog), "the store is tried again")
        standby.promote()

    assert backend.get_result("t") == 2
    assert backend.database.rows.chords is not None
    close(backend)


def test_several_hosts(
    primary: PostgreSQL, standby: Standby, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver finds the one that takes writes."""
    hosts = "&".join(f"host={server.host}:{server.port}" for server in (primary, standby))
    url = f"postgresql+psycopg://{primary.administrator}@/results?{hosts}&target_session_attrs=read-write"
    backend = backends(url)
    backend.store_result("before", 1, states.SUCCESS)
    standby.catch_up()
    primary.kill()
    with meanwhile(lambda: store(backend)):
        until(retried(caplog), "the store is tried again")
        standby.promote()

    assert [backend.get_result(task_id) for task_id in ("before", "t")] == [1, 2]
    close(backend)


def several(driver: str, name: str, *ports: int) -> str:
    """The URL of a database on several hosts."""
    hosts = "&".join(f"host=127.0.0.1:{port}" for port in ports)
    return f"postgresql+{driver}://postgres@/{name}?{hosts}&target_session_attrs=read-write"


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_host_without_the_database_while_another_is_away(
    primary: PostgreSQL, backends: Backends, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that is away may have it, so a write waits. If no host has it, that is told at once."""
    pytest.importorskip(driver)
    primary.ensure()
    with PostgreSQL() as empty:
        away = free_port()
        backend = backends(several(driver, "results", away, empty.port))
        with meanwhile(lambda: store(backend)):
            until(retried(caplog), "the store is tried again")
            empty.create_database("results")
        assert backend.get_result("t") == 2
        close(backend)

        with pytest.raises(DatabaseUnusable, match="does not exist"):
            store(backends(several(driver, "nowhere", primary.port, empty.port)))


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_a_database_that_lets_nobody_in_for_a_while(
    primary: PostgreSQL, backends: Backends, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that is switched from blue to green: a write waits until it is open again."""
    pytest.importorskip(driver)
    primary.ensure()
    primary.create_database("closed")
    primary.execute("ALTER DATABASE closed ALLOW_CONNECTIONS false")
    backend = backends(primary.url("closed", driver=driver))
    with meanwhile(lambda: store(backend)):
        until(retried(caplog), "the store is tried again")
        primary.execute("ALTER DATABASE closed ALLOW_CONNECTIONS true")

    assert backend.get_result("t") == 2
    close(backend)
    primary.drop_database("closed")


def own_ids(engine: sa.Engine, question: str) -> set[int]:
    """The server's identifiers of two connections of an engine's pool."""
    with engine.connect() as one, engine.connect() as other:
        return {connection.exec_driver_sql(question).scalar_one() for connection in (one, other)}


@on("postgresql", "mariadb")
def test_a_server_that_is_set_read_only(database: Database, backends: Backends) -> None:
    """All connections that were open are left, not only the one that has met the error."""
    question = {"mariadb": "SELECT CONNECTION_ID()"}.get(database.kind, "SELECT pg_backend_pid()")
    role = as_role(database)
    with proxied(role) as (_proxy, url):
        backend = backends(url)
        backend.store_result("before", 1, states.SUCCESS)
        engine = backend.database.engine
        before = own_ids(engine, question)
        with read_only(role), pytest.raises(BackendStoreError):
            backends(url, **ONCE).store_result("u", 3, states.SUCCESS)
        store(backend)

        assert before & own_ids(engine, question) == set()
        assert backend.get_result("t") == 2
        close(backend)
