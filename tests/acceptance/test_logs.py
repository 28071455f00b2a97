"""What a real worker logs of its results at INFO: few lines, on each of which a stranger can act."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import make_url

from acceptance.conftest import MakeApp
from acceptance.worker import PATIENCE, Worker, running, settings_for
from faults.load import until
from servers import Database
from servers.pool import on

#: A line of the backend, or of what it is built on.
OURS = re.compile(r"^\[(\w+)\] \[(?:celery_sql_results|sqlalchemy|alembic)[\w.]*\] (.*)$", re.MULTILINE)
#: What differs from run to run, and by what it is shown here.
VARYING = (
    (re.compile(r"(PostgreSQL|MariaDB|SQLite) [\d.]+"), r"\1 N"),
    (re.compile(r"\d\d:\d\d:\d\d UTC"), "HH:MM:SS UTC"),
    (re.compile(r"\((?:OperationalError|InterfaceError): .*?\)(?=: each)"), "(ERROR)"),
    (re.compile(r"after [\d.]+ s: \d+ operations"), "after N s: N operations"),
)
#: The lines that people find in the documentation.
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "logging.md"
DOCUMENTED = re.findall(r"^```text\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def documented(beginning: str) -> str:
    """A line of the documentation, with a place for the URL of the database, and without what varies."""
    [line] = [line for block in DOCUMENTED for line in block.splitlines() if line.startswith(beginning)]
    for pattern, name in VARYING:
        line = pattern.sub(name, line)
    return line.replace("sql+postgresql+psycopg://app:***@db/results", "{database}")


#: Seconds for which a database is away: longer than what is told of nobody.
AWAY = 6.0


TROUBLE, WELL = (f"WARNING {documented(words)}" for words in ("trouble with", "the result database"))


def lines(worker: Worker) -> list[str]:
    """The lines of the backend in a worker's log, without what varies."""
    found = [f"{level} {message}" for level, message in OURS.findall(worker.log)]
    for pattern, name in VARYING:
        found = [pattern.sub(name, line) for line in found]
    return found


def shown(database: Database) -> str:
    """The URL of a database as it is shown."""
    return f"sql+{database.url}"


@on("postgresql", "mariadb")
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_an_outage_under_load(database: Database, tmp_path: Path, make: MakeApp, pool: str) -> None:
    """One line as it begins, and one as it is over, however many processes and threads meet it."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    worker = Worker(tmp_path, settings, f"--pool={pool}", "--concurrency=2")
    with running(worker):
        app = make(settings)
        add = app.tasks["add"]
        assert [add.delay(n, n).get(timeout=PATIENCE) for n in range(4)] == [0, 2, 4, 6]
        before = len(lines(worker))
        database.server.shutdown()
        sent = [add.delay(n, n) for n in range(40)]
        time.sleep(AWAY)
        database.server.restart()
        assert [result.get(timeout=PATIENCE) for result in sent] == [2 * n for n in range(40)]
        time.sleep(11)
        told = lines(worker)[before:]

    assert told == [
        TROUBLE.format(database=shown(database)),
        WELL.format(database=shown(database)),
    ]


#: Which server it is, by the kind of a database.
SERVER = {"postgresql": "PostgreSQL N", "mariadb": "MariaDB N", "sqlite": "SQLite N"}
FOUND = documented("results go to")


def said_at_start(database: Database, worker: Worker) -> str:
    """The line in which a worker says what it has found."""
    deadline = time.monotonic() + PATIENCE
    while not (found := [line for line in lines(worker) if "results go to" in line]):
        assert time.monotonic() < deadline, worker.log
        time.sleep(0.05)
    return found[0]


def found_on(database: Database) -> str:
    """What it has found if all is well."""
    how = "results are notified" if database.kind == "postgresql" else "results are polled"
    line = FOUND.replace("PostgreSQL N", SERVER[database.kind]).replace("results are notified", how)
    return line.format(database=shown(database))


@on("postgresql", "mariadb")
def test_a_worker_that_starts_without_its_database(database: Database, tmp_path: Path, make: MakeApp) -> None:
    """One line at once, one as it is over, and what it has found."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    app = make(settings)
    app.backend.get_state("t")
    database.server.shutdown()
    worker = Worker(tmp_path, settings, "--concurrency=2")
    with running(worker):
        sent = [app.tasks["add"].delay(n, n) for n in range(4)]
        time.sleep(AWAY)
        database.server.restart()
        assert [result.get(timeout=PATIENCE) for result in sent] == [0, 2, 4, 6]
        said_at_start(database, worker)
        until(lambda: "is well again" in worker.log, "it is well")
        told = lines(worker)

    assert sorted(told) == [
        f"INFO {found_on(database)}",
        WELL.format(database=shown(database)),
        TROUBLE.format(database=shown(database)),
    ]


def test_who_is_connected(postgresql: Database, tmp_path: Path, make: MakeApp) -> None:
    """The server knows who is a worker, and who calls it."""
    settings = settings_for(tmp_path, f"sql+{postgresql.url}", database_idle_timeout=0)
    worker = Worker(tmp_path, settings, "--concurrency=2")
    with running(worker):
        assert make(settings).tasks["add"].delay(1, 1).get(timeout=PATIENCE) == 2
        query = f"SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = '{postgresql.name}'"
        found = {name for (name,) in postgresql.execute(query)} - {"servers"}

    assert found == {f"celery-sql-results shop@{socket.gethostname()} {role}" for role in ("worker", "client")}


#: Statements of a worker that has nothing to do, by a part of each.
KINDS = {
    "tables": "has_sequence_privilege",
    "version": "version_num",
    "ids": "seqmax",
    "listen": "LISTEN",
    "notify": "pg_notify",
    "chords": "SELECT celery_taskmeta_chords.",
    "waiters": "DELETE FROM celery_taskmeta_waiters",
}


def test_few_statements_at_start(postgresql: Database, tmp_path: Path, make: MakeApp) -> None:
    """What a worker looks at, once and not in each child; the rest is what everybody does who connects."""
    settings = settings_for(tmp_path, f"sql+{postgresql.url}", database_upkeep_interval=3600)
    make(settings).backend.get_state("t")
    worker = Worker(tmp_path, settings, "--concurrency=2")
    with postgresql.statements() as seen, running(worker):
        said_at_start(postgresql, worker)
        time.sleep(1)  # in which the first round of the upkeep ends
    kinds = [kind for statement in seen for kind, words in KINDS.items() if words in statement]
    first_use, at_start, upkeep = ["tables", "version"], ["tables", "version", "ids", "ids"], ["chords", "waiters"]

    assert kinds == [*first_use, *at_start, "listen", "notify", *upkeep]


@on("postgresql", "mariadb", "sqlite")
def test_all_is_well_at_start(database: Database, tmp_path: Path, make: MakeApp) -> None:
    """Two lines at the first start, which makes the tables, and one at each other; nothing of the libraries below."""
    settings = settings_for(tmp_path, f"sql+{database.url}")
    told = []
    for name in ("first", "second"):
        worker = Worker(tmp_path, settings, "--concurrency=2", name=name)
        with running(worker):
            line = said_at_start(database, worker)
        told.append([line if "results go to" in each else each for each in lines(worker)])
    made = "INFO the tables of celery_taskmeta are at schema version 0005 (before: None)"

    assert told == [[made, f"INFO {found_on(database)}"], [f"INFO {found_on(database)}"]]
    assert f".> results:     {shown(database)}\n" in worker.log


@on("postgresql", "mariadb")
def test_rights_that_are_missing(database: Database, tmp_path: Path, make: MakeApp) -> None:
    """A role that may only read: one line with the SQL to run, and one of what was found."""
    make(settings_for(tmp_path, f"sql+{database.url}")).backend.get_state("t")
    database.server.create_role("reader", "secret", database.name, ddl=False, write=False)
    url = make_url(database.url).set(username="reader", password="secret")
    settings = settings_for(tmp_path, f"sql+{url.render_as_string(hide_password=False)}")
    worker = Worker(tmp_path, settings, "--concurrency=2")
    with running(worker):
        line = said_at_start(database, worker)
        levels = [level for level, _ in OURS.findall(worker.log)]

    assert "Not as it should be: this role may not INSERT, UPDATE, DELETE on celery_taskmeta, and " in line
    assert f"sql+{url.render_as_string()}: " in line
    assert levels == ["WARNING", "WARNING"]


def test_the_rest_of_what_is_not_as_it_should_be(postgresql: Database, tmp_path: Path, make: MakeApp) -> None:
    """Ids of 32 bits that run out, a spool with an entry that cannot be stored yet, and one that nobody empties."""
    app = make(settings_for(tmp_path, f"sql+{postgresql.url}"))
    app.backend.store_result("t", 1, "SUCCESS")
    postgresql.execute("ALTER TABLE celery_taskmeta ALTER COLUMN id TYPE integer")
    postgresql.execute("ALTER TABLE celery_tasksetmeta ALTER COLUMN id TYPE integer")
    postgresql.execute("UPDATE celery_taskmeta SET id = 1, date_done = date_done - interval '10 days'")
    postgresql.execute("INSERT INTO celery_taskmeta (id, task_id, date_done) VALUES (200000001, 'u', now())")
    spool = tmp_path / "spool"
    settings = settings_for(tmp_path, f"sql+{postgresql.url}", database_spool_dir=str(spool))
    other = make({**settings, "result_backend": f"sql+{postgresql.url}?application_name=x"}).backend
    (other.spool.path / "0-1-1.json").write_text("{}")
    os.utime(other.spool.path / "0-1-1.json", (0, 0))
    own = make(settings).backend.spool.path
    row = {"task_id": "t", "status": "SUCCESS"}
    (own / "0-1-1.json").write_text(json.dumps({"version": 1, "kind": "task", "row": row, "part": None}))
    worker = Worker(tmp_path, settings, "--pool=solo")
    with closing(sa.create_engine(postgresql.url, poolclass=sa.NullPool).connect()) as stranger:
        stranger.exec_driver_sql("SELECT 1 FROM celery_taskmeta WHERE task_id = 't' FOR UPDATE")
        worker.start()
        line = said_at_start(postgresql, worker)
    worker.stop()

    assert line == (
        f"WARNING {found_on(postgresql)}. Not as it should be: 9 % of the ids of celery_taskmeta are used (up to "
        "2147483647), and at this rate the last is used in 97 days: let its column id be BIGINT, and its sequence, if "
        f"it has one; 1 result waits in the spool {own}, and are stored now; 1 results wait in {other.spool.path} for "
        f"{shown(postgresql)}, tables celery_taskmeta and celery_tasksetmeta since 1970-01-01 00:00 UTC, and nobody "
        "stores them: start a worker with that result_backend, or move the files to the spool of one"
    )
