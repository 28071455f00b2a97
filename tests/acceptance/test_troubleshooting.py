"""What a worker says of what is wrong with it, whole: in ten lines or fewer, once, as the page quotes it."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from acceptance.conftest import MakeApp
from acceptance.troubleshooting import PATIENCE, TICK, failed_start, headings, quoted, said
from acceptance.worker import Worker, running, settings_for
from faults.load import until
from servers import RELEASES, Database, PostgreSQL
from servers.pool import on, or_skip

MOST = 10  # lines


def assert_ends_with(heading: str, which: int, folder: Path, database: Database | None = None, **settings: Any) -> None:
    """A worker with some settings does not start, and says what the page quotes, and nothing else."""
    more = {"result_backend": "sql+sqlite:///results.db", **settings}
    status, worker = failed_start(folder, {**settings_for(folder, ""), **more})
    text = said(worker, folder, database)

    assert text == quoted(heading)[which]
    assert (status, len(text.splitlines()) <= MOST) == (1, True)
    assert "secret" not in worker.log


#: How the line ends in which a worker says what it has found, after the warning about rights.
AT_START = "a warning before this one holds the SQL to run"
SERVERS = [("postgresql", 0), ("mariadb", 1)]
on_both = pytest.mark.parametrize(("database", "which"), SERVERS, indirect=["database"])


@on_both
def test_a_wrong_password(database: Database, which: int, tmp_path: Path) -> None:
    database.server.create_role("clerk", "right", database.name, ddl=True)
    url = database.server.url(database.name, user="clerk", password="secret")
    assert_ends_with("cannot be used: a user or password", which, tmp_path, database, result_backend=f"sql+{url}")


@on_both
def test_no_such_database(database: Database, which: int, tmp_path: Path) -> None:
    url = database.server.url("nowhere")
    assert_ends_with("cannot be used: no such database", which, tmp_path, database, result_backend=f"sql+{url}")


@on_both
def test_a_role_that_may_not_create_tables(database: Database, which: int, tmp_path: Path) -> None:
    """The page leaves the end of each line out: that this SQL works is shown elsewhere."""
    database.server.create_role("clerk", "secret", database.name, ddl=False)
    url = database.server.url(database.name, user="clerk", password="secret")
    status, worker = failed_start(tmp_path, settings_for(tmp_path, f"sql+{url}"))
    lines, expected = (
        said(worker, tmp_path, database).splitlines(),
        quoted("tables are not complete")[which].splitlines(),
    )

    assert [_beginning(line) for line in lines] == [_beginning(line) for line in expected]
    assert (status, len(lines) <= MOST) == (1, True)


def _beginning(line: str) -> str:
    return re.split(" \\( | TO ", line)[0]


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    url = f"sql+sqlite:///{tmp_path}/missing/results.db"
    assert_ends_with("cannot be used: a file of SQLite", 0, tmp_path, result_backend=url)


def test_a_directory_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "results.db").mkdir()
    assert_ends_with("cannot be used: a file of SQLite", 1, tmp_path)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "results.db").write_text("no database, but a long enough text " * 100)
    assert_ends_with("cannot be used: a file of SQLite", 2, tmp_path)


def test_a_certificate_that_is_refused(tmp_path: Path) -> None:
    with or_skip("postgresql-15"), RELEASES["postgresql-15"]() as server, RELEASES["postgresql-15"]() as other:
        assert isinstance(server, PostgreSQL)
        server.create_database("shop")
        options = {"connect_args": {"sslmode": "verify-full", "sslrootcert": str(other.folder / "certificate")}}
        database = Database("postgresql", "shop", server.url("shop"), server)
        settings = {"result_backend": f"sql+{database.url}", "database_engine_options": options}
        assert_ends_with("cannot be used: TLS", 0, tmp_path, database, **settings)


URLS = [
    ("A driver for asyncio", 0, "postgresql+asyncpg://shop:secret@db/shop"),
    ("A driver for asyncio", 1, "mysql+aiomysql://shop:secret@db/shop"),
    ("A driver for asyncio", 2, "sqlite+aiosqlite:///results.db"),
    ("A database that nobody knows", 0, "postgres://shop:secret@db/shop"),
    ("A database that nobody knows", 1, "postgresql+psycopg3://shop:secret@db/shop"),
    ("Several hosts", 0, "postgresql+psycopg://shop:secret@a:5432,b:5432/shop"),
    ("A password with special characters", 0, "postgresql+psycopg://shop:se@secret@db/shop"),
    ("A password with special characters", 1, "mysql+pymysql://shop:se@se:cret@db/shop"),
]


@pytest.mark.parametrize(("heading", "which", "url"), URLS)
def test_a_url(heading: str, which: int, url: str, tmp_path: Path) -> None:
    assert_ends_with(heading, which, tmp_path, result_backend=f"sql+{url}")


DRIVERS = [
    (0, "psycopg", "postgresql+psycopg"),
    (1, "psycopg2", "postgresql+psycopg2"),
    (2, "pymysql", "mysql+pymysql"),
    (3, "MySQLdb", "mysql+mysqldb"),
    (4, "mysql", "mysql+mysqlconnector"),
    (5, "oracledb", "oracle+oracledb"),
]


@pytest.mark.parametrize(("which", "module", "drivername"), DRIVERS)
def test_a_driver_that_is_missing(which: int, module: str, drivername: str, tmp_path: Path) -> None:
    hide(module, tmp_path)
    url = f"sql+{drivername}://shop:secret@db/shop"
    assert_ends_with("A driver that is not installed", which, tmp_path, result_backend=url)


def hide(module: str, folder: Path) -> None:
    """Let a module not be there for a worker in a folder."""
    words = f"No module named {module!r}"
    (folder / f"{module}.py").write_text(f"raise ModuleNotFoundError({words!r}, name={module!r})")


SETTINGS: list[tuple[str, int, dict[str, Any]]] = [
    ("An option of the engine", 0, {"database_engine_options": {"pool_sise": 3}}),
    ("An option of the engine", 1, {"database_engine_options": {"pool_recycle": "an hour"}}),
    ("cannot be used: an option of the driver", 0, {"database_engine_options": {"connect_args": {"timeout": "long"}}}),
    ("A value that cannot work", 0, {"database_poll_min_interval": -1}),
    ("A value that cannot work", 1, {"database_table_schemas": "results"}),
    ("A value that cannot work", 2, {"database_table_names": {"task": "results", "group": "results"}}),
]


@pytest.mark.parametrize(("heading", "which", "settings"), SETTINGS)
def test_a_setting(heading: str, which: int, settings: dict[str, Any], tmp_path: Path) -> None:
    assert_ends_with(heading, which, tmp_path, **settings)


def test_a_serializer_that_is_missing(tmp_path: Path) -> None:
    hide("msgpack", tmp_path)
    assert_ends_with("A serializer that is not installed", 0, tmp_path, result_serializer="msgpack")


def test_a_spool_that_others_use(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o1777)
    assert_ends_with("The directory of the spool", 0, tmp_path, database_spool_dir=f"{tmp_path}/queue/../spool")


def test_settings_that_are_misspelt(tmp_path: Path) -> None:
    """It starts: another package may own them."""
    misspelt = {"database_table_name": {"task": "t"}, "database_retry_windw": 3, "database_of_somebody_else": 1}
    worker = Worker(tmp_path, settings_for(tmp_path, "sql+sqlite:///results.db", **misspelt))
    with running(worker):
        text = said(worker, tmp_path)

    assert text == quoted("A setting that nobody knows")[0]


@on_both
def test_a_role_that_may_only_read(database: Database, which: int, tmp_path: Path, make: MakeApp) -> None:
    """It is told once what to grant, before its first task. Each task that it cannot store is one line of Celery's."""
    prepare(make, tmp_path, database)
    database.server.create_role("reader", "secret", database.name, ddl=False, write=False)
    url = database.server.url(database.name, user="reader", password="secret")
    settings = settings_for(tmp_path, f"sql+{url}", task_track_started=False)
    worker = Worker(tmp_path, settings, "--concurrency=2")
    with running(worker):
        until(lambda: AT_START in worker.log, "what it has found")
        lines_at_start = said(worker, tmp_path, database).splitlines()
        for _ in range(3):
            make({**settings, "result_backend": f"sql+{database.url}"}).tasks["add"].delay(1, 2)
        lines = failed_tasks(worker, 3)

    assert [AT_START in line for line in lines_at_start] == [False, False, True]
    assert "\n".join(lines_at_start[:2]) == quoted("A role without rights")[which]
    assert len(lines) == 3
    assert "Traceback" not in worker.log


TROUBLE = "trouble with the result database"
AT_A_TIME = re.compile(r"\d\d:\d\d:\d\d UTC")


def assert_starts_with_trouble(which: int, folder: Path, url: str, database: Database | None = None) -> None:
    """A worker starts although it cannot store anything, and says what the page quotes, and nothing else."""
    worker = Worker(folder, settings_for(folder, f"sql+{url}"), "--concurrency=2")
    with running(worker):
        until(lambda: TROUBLE in worker.log, "it has noticed")
        text = said(worker, folder, database)

    assert AT_A_TIME.sub("", text) == AT_A_TIME.sub("", quoted(TROUBLE)[which])


@on_both
def test_nobody_is_there(database: Database, which: int, tmp_path: Path) -> None:
    database.server.shutdown()
    try:
        assert_starts_with_trouble(which, tmp_path, database.url, database)
    finally:
        database.server.restart()


def test_a_file_that_may_only_be_read(tmp_path: Path) -> None:
    (tmp_path / "results.db").touch()
    assert_starts_with_trouble(2, tmp_path, "sqlite:///file:results.db?mode=ro&uri=true")


def test_tables_of_another_role(postgresql: Database, tmp_path: Path, make: MakeApp) -> None:
    """It starts, and tells once, in its main process, whose they are."""
    postgresql.server.create_role("owner", "secret", postgresql.name, ddl=True)
    url = postgresql.server.url(postgresql.name, user="owner", password="secret")
    _ = make(settings_for(tmp_path, f"sql+{url}")).backend
    worker = Worker(tmp_path, settings_for(tmp_path, f"sql+{postgresql.url}"), "--concurrency=2")
    with running(worker):
        add = make(settings_for(tmp_path, f"sql+{postgresql.url}")).tasks["add"]
        assert add.delay(1, 2).get(timeout=PATIENCE) == 3
        text = said(worker, tmp_path, postgresql)

    assert text == quoted("Tables of another role")[0]


def prepare(make: MakeApp, folder: Path, database: Database) -> None:
    """Make the tables, as somebody who may."""
    _ = make(settings_for(folder, f"sql+{database.url}")).backend


def failed_tasks(worker: Worker, number: int) -> list[str]:
    """The lines of the log over tasks that could not be stored, as soon as there are so many."""
    deadline = time.monotonic() + PATIENCE
    while True:
        lines = [line for line in worker.log.splitlines() if "Pool callback raised exception: " in line]
        if len(lines) >= number or time.monotonic() > deadline:
            return lines
        time.sleep(TICK)


def test_the_way_is_shown_to_whoever_looks_for_it(tmp_path: Path) -> None:
    """At DEBUG."""
    settings = settings_for(tmp_path, "sql+postgres://shop:secret@db/shop")
    status, worker = failed_start(tmp_path, settings, "--loglevel=DEBUG")

    assert (status, "Traceback (most recent call last)" in worker.log) == (1, True)


@on("postgresql", "mariadb", "sqlite")
def test_nobody_else_chatters(database: Database, tmp_path: Path, make: MakeApp) -> None:
    """Neither Alembic while the tables are made, nor SQLAlchemy's pools when connections are lost."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    worker = Worker(tmp_path, settings, "--concurrency=1")
    with running(worker):
        add = make(settings).tasks["add"]
        assert add.delay(1, 2).get(timeout=PATIENCE) == 3
        database.server.shutdown()
        database.server.restart()
        assert add.delay(3, 4).get(timeout=PATIENCE) == 7
    lines = [line for line in worker.log.splitlines() if "[sqlalchemy" in line or "[alembic" in line]

    assert lines == []


def test_every_quotation_is_compared() -> None:
    """None on the page may go stale."""
    one_by_one = {
        "cannot be used: a user or password": 2,
        "cannot be used: no such database": 2,
        "cannot be used: a file of SQLite": 3,
        "cannot be used: TLS": 1,
        "tables are not complete": 2,
        "A driver that is not installed": len(DRIVERS),
        "A serializer that is not installed": 1,
        "The directory of the spool": 1,
        "A setting that nobody knows": 1,
        "A role without rights": 2,
        "Tables of another role": 1,
        TROUBLE: 3,
    }
    compared = Counter(heading for heading, *_ in (*URLS, *SETTINGS))

    assert Counter(headings()) == compared + Counter(one_by_one)
