"""What a real worker logs of its results at INFO: few lines, on each of which a stranger can act."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from acceptance.conftest import MakeApp
from acceptance.worker import PATIENCE, Worker, running, settings_for
from servers import Database
from servers.pool import on

#: A line of the backend, or of what it is built on.
OURS = re.compile(r"^\[(\w+)\] \[(?:celery_sql_results|sqlalchemy|alembic)[\w.]*\] (.*)$", re.MULTILINE)
#: What differs from run to run, and by what it is shown here.
VARYING = (
    (re.compile(r"\d\d:\d\d:\d\d UTC"), "HH:MM:SS UTC"),
    (re.compile(r"\((?:OperationalError|InterfaceError): .*?\)(?=: each)"), "(ERROR)"),
    (re.compile(r"after [\d.]+ s: \d+ operations"), "after N s: N operations"),
)
#: What is told as an outage begins.
TROUBLE = (
    "WARNING trouble with the result database {database} since HH:MM:SS UTC (ERROR): each result is tried again for "
    "240 s, the first until HH:MM:SS UTC, then given up (database_spool_dir would keep it). Who waits for a result "
    "goes on waiting."
)
#: Seconds for which a database is away: longer than what is told of nobody.
AWAY = 6.0


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
        f"WARNING the result database {shown(database)} is well again, after N s: N operations were tried again",
    ]
