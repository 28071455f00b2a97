"""A database that will not have us: told at once by who comes for the first time, and waited for by who was there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from celery.exceptions import BackendGetMetaError, BackendStoreError

from celery_sql_results import DatabaseBackend, DatabaseUnusable
from faults.load import until
from servers import Database
from servers.pool import on
from support import Backends, app_on, close

#: An outcome that takes longer than this to be refused was tried again.
NO_PATIENCE = {"database_retry_window": 600.0, "result_backend_base_sleep_between_retries_ms": 600_000}
#: Trying again takes this long at most.
PATIENCE = {"result_backend_max_sleep_between_retries_ms": 50}
DRIVERS = [
    *(("postgresql", driver) for driver in ("psycopg", "psycopg2", "pg8000")),
    *(("mariadb", driver) for driver in ("pymysql", "mysqldb", "mysqlconnector", "mariadbconnector")),
]
MODULES = {"mysqldb": "MySQLdb", "mysqlconnector": "mysql.connector", "mariadbconnector": "mariadb"}
every_driver = pytest.mark.parametrize(("database", "driver"), DRIVERS, indirect=["database"])

CREDENTIALS = (
    "Needed: a user and a password that the server takes; in a URL, each @ : / # ? % in them is written "
    "%40 %3A %2F %23 %3F %25"
)
NO_DATABASE = "Needed: a database that is there: create it, or name another"


def url_of(database: Database, driver: str, name: str | None = None, **user: str) -> str:
    """A URL for a driver, if that is installed."""
    pytest.importorskip(MODULES.get(driver, driver))
    url = database.server.url(name or database.name, driver=driver, **user)
    return url.replace("mysql+", "mariadb+", 1) if driver == "mariadbconnector" else url


def refusal(url: str, **settings: Any) -> DatabaseUnusable:
    """What the first use of a database ends with."""
    with pytest.raises(DatabaseUnusable) as raised:
        _ = app_on(url, **NO_PATIENCE, **settings).backend
    return raised.value


@every_driver
def test_a_wrong_password(database: Database, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """It names the setting, the database and what is needed; its cause is the driver's error, and nothing is around."""
    database.server.create_role("clerk", "right", database.name, ddl=True)
    told = refusal(url_of(database, driver, user="clerk", password="secret"))
    beginning = f"result_backend is {sa.make_url(url_of(database, driver, user='clerk', password='x'))}, which cannot"

    assert (str(told)[: len(beginning)], str(told).rpartition("). ")[2]) == (beginning, CREDENTIALS)
    assert "secret" not in str(told)
    assert_is_bare(told.__cause__)
    assert caplog.messages == []


def assert_is_bare(error: BaseException | None) -> None:
    """It is a driver's, and tells neither its way nor what was before."""
    assert error is not None
    assert not isinstance(error, sa.exc.SQLAlchemyError)
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


@every_driver
def test_no_such_database(database: Database, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    told = refusal(url_of(database, driver, "nowhere"))

    assert str(told).rpartition("). ")[2] == NO_DATABASE
    assert caplog.messages == []


@on("postgresql")
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_too_many_connections_of_a_role(database: Database, driver: str) -> None:
    """That passes: whoever holds them ends."""
    database.server.create_role("clerk", "right", database.name, ddl=True)
    database.execute("ALTER ROLE clerk CONNECTION LIMIT 1")
    url = url_of(database, driver, user="clerk", password="right")
    held = sa.create_engine(url).connect()
    later = Timer(1, lambda: (held.close(), held.engine.dispose()))
    later.start()
    backend = app_on(
        url, database_create_tables_at_setup=False, database_engine_options={"pool_size": 1}, **PATIENCE
    ).backend
    backend.store_result("t", 1, states.SUCCESS)
    later.join()

    assert backend.get_state("t") == states.SUCCESS
    close(backend)


@on("mariadb")
def test_a_database_of_somebody_else(database: Database) -> None:
    """MariaDB tells no more of it than that."""
    database.server.create_role("clerk", "right", database.name, ddl=True)
    told = refusal(database.server.url("mysql", user="clerk", password="right"))

    assert str(told).endswith("Needed: a role that may connect to this database: grant it that right, or name another")


@on("postgresql")
def test_a_database_that_lets_a_role_not_in(database: Database) -> None:
    database.server.create_role("clerk", "right", database.name, ddl=True)
    database.execute(f"REVOKE CONNECT ON DATABASE {database.name} FROM PUBLIC")
    told = refusal(database.server.url(database.name, user="clerk", password="right"))

    assert str(told).endswith("Needed: a role that may connect to this database: grant it that right, or name another")


def test_first_use_without_a_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By who stores, and by who only reads."""
    url = f"sqlite:///{tmp_path}/missing/results.db"
    backend = app_on(url, database_create_tables_at_setup=False, **NO_PATIENCE).backend
    for use in (lambda: backend.store_result("t", 1, states.SUCCESS), lambda: backend.get_state("t")):
        with pytest.raises(DatabaseUnusable, match=f"create {tmp_path}/missing, or name another"):
            use()
    (tmp_path / "missing").mkdir()
    backend.store_result("t", 1, states.SUCCESS)

    assert backend.get_state("t") == states.SUCCESS
    assert [message[:59] for message in caplog.messages] == [
        "storing SUCCESS of task t failed (DatabaseUnusable: result_"
    ]


# -- who was there before --------------------------------------------------------------------------------------------

Change = Callable[[], object]


def lock_out(database: Database, folder: Path, backend: DatabaseBackend) -> Change:
    """Let the database refuse whoever connects from now on, and return what takes that back."""
    if database.kind == "sqlite":
        shutil.move(folder / "db", folder / "away")
        backend.database.engine.dispose()
        return lambda: shutil.move(folder / "away", folder / "db")
    clerk = "'clerk'@'%'" if database.kind == "mariadb" else "clerk"
    words = "IDENTIFIED BY" if database.kind == "mariadb" else "PASSWORD"
    kind = "USER" if database.kind == "mariadb" else "ROLE"
    database.execute(f"ALTER {kind} {clerk} {words} 'another'")
    backend.database.engine.dispose()
    return lambda: database.execute(f"ALTER {kind} {clerk} {words} 'right'")


def clerks(database: Database, folder: Path) -> str:
    """The URL of a role whose password may be changed, or of a file that may be moved away."""
    if database.kind == "sqlite":
        (folder / "db").mkdir()
        return f"sqlite:///{folder}/db/results.db"
    database.server.create_role("clerk", "right", database.name, ddl=True)
    return database.server.url(database.name, user="clerk", password="right")


@on("postgresql", "mariadb", "sqlite")
def test_an_outcome_outlasts_a_password_that_is_changed(
    database: Database, backends: Backends, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Or a disk that is mounted again: it is stored as soon as the database has us back."""
    backend = backends(clerks(database, tmp_path), **PATIENCE)
    backend.store_result("before", 1, states.SUCCESS)
    take_back = lock_out(database, tmp_path, backend)
    storing = Thread(target=lambda: backend.store_result("t", 2, states.SUCCESS))
    storing.start()
    until(lambda: any("trouble with the result database" in line for line in caplog.messages), "the store has failed")
    take_back()
    storing.join()

    assert [backend.get_result(task_id) for task_id in ("before", "t")] == [1, 2]


@on("postgresql", "mariadb", "sqlite")
def test_or_is_kept_in_the_spool(database: Database, backends: Backends, tmp_path: Path) -> None:
    """At once, where there is one: nobody has to wait for the window."""
    backend = backends(clerks(database, tmp_path), database_spool_dir=str(tmp_path / "spool"), **NO_PATIENCE)
    backend.store_result("before", 1, states.SUCCESS)
    take_back = lock_out(database, tmp_path, backend)
    backend.store_result("t", 2, states.SUCCESS)
    kept = backend.spooled
    take_back()
    until(lambda: backend.spooled == 0, "the spool is empty")  # its thread has nothing to do any more

    assert (kept, backend.get_result("t")) == (1, 2)


@on("postgresql", "mariadb", "sqlite")
def test_who_gives_up_says_why(database: Database, backends: Backends, tmp_path: Path) -> None:
    """Which database, and what the driver said: no way, no wrapper."""
    url = clerks(database, tmp_path)
    backend = backends(url, result_backend_max_retries=1, result_backend_base_sleep_between_retries_ms=1)
    backend.store_result("before", 1, states.SUCCESS)
    take_back = lock_out(database, tmp_path, backend)
    with pytest.raises(BackendStoreError) as storing:
        backend.store_result("t", 2, states.SUCCESS)
    with pytest.raises(BackendGetMetaError) as reading:
        backend.get_task_meta("t")
    take_back()

    for error in (storing.value, reading.value):
        told = f"the result database {sa.make_url(url)} cannot be reached (OperationalError: "
        assert str(error)[: len(told)] == told
        assert_is_bare(error.__cause__)
