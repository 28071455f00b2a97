"""The examples do what they say, run as somebody would who copied them to an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from servers import Database
from servers.process import Home

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: Lines that an example may have.
LONGEST = 50
#: Seconds that a worker may take to start.
PATIENCE = 60.0


def run(name: str, folder: Path, **environment: str) -> list[str]:
    """Copy an example to a folder, run it there and return the lines that it printed."""
    shutil.copy(EXAMPLES / f"{name}.py", folder)
    command, variables = [sys.executable, f"{name}.py"], {**os.environ, **environment}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=variables)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@contextmanager
def worker(name: str) -> Iterator[Path]:
    """The folder of an example, in which a worker is ready for its tasks."""
    home = Home("examples", account="root")
    shutil.copy(EXAMPLES / f"{name}.py", home.folder)
    log = home.folder / "log"
    command = ["celery", "--app", name, "worker", "--concurrency", "2", "--loglevel", "info"]
    process = home.spawn([sys.executable, "-m", *command], log)
    try:
        await_ready(process, log)
        yield home.folder
    finally:
        home.remove()
        process.wait()


def await_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when a worker is ready for tasks."""
    deadline = time.monotonic() + PATIENCE
    while " ready." not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("example", [*EXAMPLES.glob("*.py")], ids=lambda path: path.stem)
def test_is_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) <= LONGEST


def test_minimal() -> None:
    with worker("minimal") as folder:
        assert run("minimal", folder) == ["5"]


def test_custom_tables(tmp_path: Path) -> None:
    *said, tables = run("custom_tables", tmp_path)
    assert said == [
        "shop knows: order 7 packed",
        "billing knows: order 7 paid",
        "shop knows nothing of billing's task: PENDING",
    ]
    assert {name.partition("_")[0] for name in tables.split()[1:]} == {"shop", "billing"}


def test_read_with_sql(tmp_path: Path) -> None:
    failure = '{"exc_type": "ZeroDivisionError", "exc_message": ["division by zero"], "exc_module": "builtins"}'
    assert run("read_with_sql", tmp_path) == [
        "read_with_sql.divide SUCCESS 10.0",
        "read_with_sql.divide SUCCESS 5.0",
        f"read_with_sql.divide FAILURE {failure}",
        "1 FAILURE, 2 SUCCESS",
        "ZeroDivisionError: division by zero",
    ]


def test_engine_callback(postgresql: Database, tmp_path: Path) -> None:
    postgresql.server.create_role("tokens", "the token", postgresql.name, ddl=True)
    url = postgresql.server.url(postgresql.name, user="tokens")
    with pytest.raises(OperationalError, match="no password supplied"):
        create_engine(url).connect()
    (tmp_path / "token").write_text("the token\n")
    said = run("engine_callback", tmp_path, RESULTS=f"sql+{url}", TOKEN_FILE="token")
    assert said == ["stored and read with a token: 5"]
