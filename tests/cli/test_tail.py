"""`tail`: new results as they come."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from queue import Empty, Queue
from typing import Any

import pytest

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from cli.looking import HOSTILE, PATIENCE, command, environment, fail, is_tame, look, succeed, through
from servers import Database
from servers.pool import on

__all__ = ["through"]  # a fixture


class Tail:
    """A running `tail`, and the lines that it prints."""

    def __init__(self, database: Database, *arguments: str, through: str = "celery-sql-results") -> None:
        words = command(database, ("tail", "--interval=0.1", *arguments), through)
        pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(words, env=environment(database), text=True, **pipe)
        self.lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.put(line)

    def next(self, seconds: float = PATIENCE) -> str:
        """The next line that it prints, which must come soon."""
        return self.lines.get(timeout=seconds)

    def ids(self, count: int) -> list[str]:
        """The ids of so many results that are printed as JSON."""
        return [json.loads(self.next())["task_id"] for _ in range(count)]

    def interrupt(self) -> tuple[int, str]:
        """The exit code after Ctrl-C, and what was said on the side."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        return code, self.process.stderr.read() if self.process.stderr else ""


@contextmanager
def tailing(database: Database, *arguments: str, through: str = "celery-sql-results") -> Iterator[Tail]:
    """A tail that is ended after the block."""
    tail = Tail(database, *arguments, through=through)
    try:
        yield tail
    finally:
        tail.process.kill()
        tail.process.wait()
        for pipe in (tail.process.stdout, tail.process.stderr):
            if pipe:
                pipe.close()


def test_new_results(database: Database, backend: DatabaseBackend, through: str) -> None:
    """Each once, whatever the database does between: those that are there, those that come, one that is done again."""
    succeed(backend, "a")
    with tailing(database, "--json", "--since=1h", through=through) as tail:
        assert tail.ids(1) == ["a"]
        fail(backend, "b", ValueError("no"))
        succeed(backend, "c")
        assert tail.ids(2) == ["b", "c"]
        succeed(backend, "b")
        assert tail.ids(1) == ["b"]
        assert tail.interrupt() == (0, "")
        with pytest.raises(Empty):
            tail.next(0.3)


@on("postgresql", "mariadb", "sqlite")
def test_those_that_are_there_are_not_new(database: Database, backend: DatabaseBackend) -> None:
    succeed(backend, "old")
    with tailing(database, "--json") as tail:
        found: list[str] = []
        for number in range(1000):
            succeed(backend, f"new-{number}")
            time.sleep(0.2)
            if not tail.lines.empty():
                found = tail.ids(1)
                break

    assert found[0].startswith("new-")


@on("postgresql", "mariadb", "sqlite")
def test_what_is_committed_late(database: Database, backend: DatabaseBackend) -> None:
    """Some seconds after a result that ended later. And a worker whose clock is ahead moves nobody on."""
    succeed(backend, "a")
    with tailing(database, "--json", "--since=1h") as tail:
        assert tail.ids(1) == ["a"]
        stored(backend, "ahead", utc_now() + timedelta(hours=1))
        assert tail.ids(1) == ["ahead"]
        succeed(backend, "b")
        assert tail.ids(1) == ["b"]
        stored(backend, "late", utc_now() - timedelta(seconds=5))
        assert tail.ids(1) == ["late"]


def stored(backend: DatabaseBackend, task_id: str, when: Any) -> None:
    """A result that was done at a time, committed now."""
    with backend.database.engine.connect() as connection:
        row = {"task_id": task_id, "status": "SUCCESS", "date_done": when}
        connection.execute(backend.models.task.insert(), row)
        connection.commit()


@on("postgresql", "mariadb", "sqlite")
def test_filters_a_limit_and_many_at_once(database: Database, backend: DatabaseBackend) -> None:
    """Of one moment are more results than one query reads."""
    backend.database.rows  # noqa: B018 - the tables are made ready
    task, when = backend.models.task, utc_now()
    rows = [{"task_id": f"t{number}", "status": "SUCCESS", "date_done": when} for number in range(2100)]
    with backend.database.engine.connect() as connection:
        connection.execute(task.insert(), [{**row, "name": "many"} for row in rows])
        connection.commit()
    fail(backend, "b", ValueError("no"))
    many = look(database, "tail", "--json", "--since=1h", "--task=many", "--limit=2100")
    failed = look(database, "tail", "--json", "--since=1h", "--state=FAILURE", "--limit=1")

    assert (many.code, len({row["task_id"] for row in many.rows})) == (0, 2100)
    assert [row["task_id"] for row in failed.rows] == ["b"]


@on("postgresql", "mariadb")
def test_a_database_that_goes_away(database: Database, backend: DatabaseBackend) -> None:
    """That is told once, and so is its return."""
    server = database.server
    succeed(backend, "a")
    with tailing(database, "--json", "--since=1h") as tail:
        assert tail.ids(1) == ["a"]
        server.shutdown()
        assert tail.process.stderr is not None
        away = tail.process.stderr.readline()
        server.ensure()
        back = tail.process.stderr.readline()
        succeed(backend, "b")
        assert tail.ids(1) == ["b"]
        code, rest = tail.interrupt()

    assert "the database does not answer" in away
    assert back == "the database is back\n"
    assert (code, rest) == (0, "")


@on("sqlite")
def test_whoever_reads_has_enough(database: Database, backend: DatabaseBackend) -> None:
    """As `head` does: that is no error."""
    succeed(backend, "a")
    words = command(database, ("tail", "--since=1h", "--interval=0.1"), "celery-sql-results")
    with subprocess.Popen(words, env=environment(database), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        succeed(backend, "b")
        ended = process.wait(PATIENCE), process.stderr.read()

    assert first.split()[2:4] == [b"SUCCESS", b"shop.pay"]
    assert ended == (0, b"")


def test_hostile_words(database: Database, backend: DatabaseBackend) -> None:
    fail(backend, HOSTILE, ValueError(HOSTILE), task=HOSTILE, hostname=HOSTILE)
    for form in ("--utc", "--json"):
        found = look(database, "tail", "--since=1h", "--limit=1", form)
        assert found.code == 0
        assert is_tame(found.out)
        assert "[31mred" in found.out
