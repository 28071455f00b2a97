"""TLS is the driver's affair: the options for it reach it, on every connection, and what is wrong with it is told."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import states
from celery.result import AsyncResult
from sqlalchemy import make_url

from celery_sql_results import DatabaseUnusable
from faults.load import until
from servers import RELEASES, Database, MariaDB, PostgreSQL
from servers.pool import on, or_skip
from servers.proxy import Proxy
from support import Backends, app_on, close

#: Who is not the administrator is let in by TLS only.
ONLY_TLS = """\
local all postgres trust
host all postgres 127.0.0.1/32 trust
hostssl all all 127.0.0.1/32 scram-sha-256
"""
DRIVERS = ("psycopg", "psycopg2", "pg8000")
#: An outcome that takes longer than this to be refused was tried again.
NO_PATIENCE = {"database_retry_window": 600.0, "result_backend_base_sleep_between_retries_ms": 600_000}


#: pg8000 leaves the socket of a connection open that was cut, and Python complains of it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def complaints() -> Iterator[None]:
    """It does so in the test that has cut them."""
    yield
    gc.collect()


class Encrypted(MariaDB):
    """A MariaDB server with a certificate that nobody but itself vouches for."""

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), f"--ssl-cert={self.certificate}", f"--ssl-key={self.key}"]

    def _install(self) -> None:
        self.certificate, self.key = self._home.certify(self.host)
        super()._install()


@on("mariadb")
def test_what_is_stored_travels_encrypted(backends: Backends) -> None:
    with or_skip("mariadb"), Encrypted() as server:
        server.create_database("shop")
        options = {"connect_args": {"ssl": {"ca": str(server.certificate)}}}
        backend = backends(server.url("shop"), database_engine_options=options)
        backend.store_result("t", 1, states.SUCCESS)
        with backend.database.engine.connect() as connection:
            _name, cipher = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()

        assert (backend.get_result("t"), cipher != "") == (1, True)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A PostgreSQL that lets a clerk in by TLS only."""
    with or_skip("postgresql-15"), RELEASES["postgresql-15"]() as server:
        assert isinstance(server, PostgreSQL)
        server.create_database("shop")
        server.create_role("clerk", "secret", "shop", ddl=True)
        (server.folder / "data" / "pg_hba.conf").write_text(ONLY_TLS)
        server.execute("SELECT pg_reload_conf()")
        yield server


def url_of(server: PostgreSQL, driver: str, port: int = 0) -> str:
    pytest.importorskip(driver)
    url = make_url(server.url("shop", user="clerk", password="secret", driver=driver))
    return url.set(port=port or server.port).render_as_string(hide_password=False)


def verifying(driver: str, certificate: str) -> dict[str, Any]:
    """The options by which a driver trusts only whoever shows that certificate, as the documentation has them."""
    if driver == "pg8000":
        return {"connect_args": {"ssl_context": ssl.create_default_context(cafile=certificate)}}
    return {"connect_args": {"sslmode": "verify-full", "sslrootcert": certificate}}


def connections(server: PostgreSQL, name: str) -> set[tuple[bool, bool]]:
    """Of the connections of an application: whether they are encrypted, and whether they listen."""
    joined = "pg_stat_ssl JOIN pg_stat_activity USING (pid)"
    return set(server.execute(f"SELECT ssl, query LIKE 'LISTEN%' FROM {joined} WHERE application_name = '{name}'"))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("way", ["quick", "SQLAlchemy's"])
def test_every_connection_is_encrypted(server: PostgreSQL, driver: str, way: str) -> None:
    """Those of the pool and that which listens; also those that are opened after all were lost."""
    name = f"{driver}-{len(way)}"
    options = verifying(driver, str(server.folder / "certificate"))
    options["connect_args"]["application_name"] = name
    options |= {} if way == "quick" else {"execution_options": {"any": 1}}
    backend = app_on(url_of(server, driver), database_engine_options=options).backend
    listens = backend.database.impl.can_listen(backend.database.engine)
    expected = {(True, False), (True, True)} if listens else {(True, False)}
    for number in range(2):
        task_id = f"{name} {number}"
        with ThreadPoolExecutor(1) as aside:
            waiting = aside.submit(AsyncResult(task_id, app=backend.app).get, timeout=60)
            until(lambda: connections(server, name) == expected, "all connections")
            backend.store_result(task_id, number, states.SUCCESS)
            assert waiting.result() == number
        assert connections(server, name) == expected
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'")
    close(backend)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_client_without_tls(server: PostgreSQL, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is told so at once, and tries nothing again."""
    without: dict[str, Any] = {"ssl_context": False} if driver == "pg8000" else {"sslmode": "disable"}
    with pytest.raises(DatabaseUnusable, match="no encryption"):
        _ = app_on(url_of(server, driver), database_engine_options={"connect_args": without}, **NO_PATIENCE).backend

    assert caplog.messages == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_server_that_is_not_trusted(server: PostgreSQL, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is sent to it, and nothing is tried again."""
    with RELEASES["postgresql-15"]() as other:
        options = verifying(driver, str(other.folder / "certificate"))
        with pytest.raises(DatabaseUnusable, match="certificate verify failed"):
            _ = app_on(url_of(server, driver), database_engine_options=options, **NO_PATIENCE).backend

    assert caplog.messages == []


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sslmode": "verify"}, "invalid sslmode value"),
        ({"sslmode": "verify-full", "sslrootcert": "/nowhere"}, "does not exist"),
        ({"sslcert": "{certificate}", "sslkey": "/nowhere"}, "private key file"),
    ],
)
def test_options_that_cannot_work(
    server: PostgreSQL, driver: str, options: dict[str, str], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    args = {name: value.format(certificate=server.folder / "certificate") for name, value in options.items()}
    with pytest.raises(DatabaseUnusable, match=told):
        _ = app_on(url_of(server, driver), database_engine_options={"connect_args": args}, **NO_PATIENCE).backend

    assert caplog.messages == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_cut_in_the_middle_of_the_handshake(server: PostgreSQL, driver: str) -> None:
    """libpq then tries without TLS, which the server forbids; pg8000 raises what is no error of a driver. Both pass."""
    with Proxy(server.port) as proxy:
        backend = app_on(url_of(server, driver, proxy.port), database_short_lived_sessions=True).backend
        for number in range(3):
            cut = proxy.cuts
            proxy.cut_after(100, "to client")
            backend.store_result(f"{driver}-{number}", number, states.SUCCESS)
            assert (backend.get_result(f"{driver}-{number}"), proxy.cuts) == (number, cut + 1)
        close(backend)


@on("postgresql")
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_server_without_it_is_refused_at_once(database: Database, driver: str) -> None:
    """If the options ask for it."""
    database.execute("ALTER SYSTEM SET ssl = off")
    database.execute("SELECT pg_reload_conf()")
    url = database.server.url(database.name, driver=driver)
    try:
        with pytest.raises(DatabaseUnusable, match="does not support SSL"):
            _ = app_on(url, database_engine_options={"connect_args": {"sslmode": "require"}}, **NO_PATIENCE).backend
    finally:
        database.execute("ALTER SYSTEM RESET ssl")
        database.execute("SELECT pg_reload_conf()")
