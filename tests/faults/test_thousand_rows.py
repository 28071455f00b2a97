"""A thousand rows, each as hostile as the next: their reader stays small, and none of them holds it up."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import sqlalchemy as sa

from celery_sql_results import DatabaseBackend
from faults.test_fuzzed_rows import mutated
from servers import Database
from support import app_on, close
from unit.payload.test_budget import HOSTILE

ROWS = 1000
#: Of the processor, for one row, in seconds; of memory, for the whole process, in bytes.
SECONDS, BYTES = 0.1, 200 * 1024 * 1024
ACCEPTED = ["json", "yaml", "msgpack"]


def write(backend: DatabaseBackend) -> None:
    """Rows that hold one or two hostile payloads, as they are or nearly."""
    chance = random.Random(0)
    payloads = [(make(), content_type) for make, content_type, _ in HOSTILE.values()]
    table, rows = backend.models.task, []
    for number in range(ROWS):
        (result, content_type), (args, _) = chance.choices(payloads, k=2)
        if number % 2:
            result, args = mutated(chance, result), mutated(chance, args)
        status = chance.choice(["SUCCESS", "FAILURE", "STARTED"])
        row = {"task_id": str(number), "status": status, "result": result, "args": args, "content_type": content_type}
        rows.append(row)
    with backend.database.engine.begin() as connection:
        connection.execute(sa.insert(table), rows)


def read(url: str) -> None:
    """In a process of its own: print the longest time that a row took, and the most memory."""
    backend = app_on(url, result_extended=True, accept_content=ACCEPTED).backend
    longest = 0.0
    for number in range(ROWS):
        longest = max(longest, min(_seconds(backend, str(number)) for _ in range(3)))  # others may be busy
    print(json.dumps([longest, _most_memory()]))
    close(backend)


def _most_memory() -> int:
    """Since this program began: what `getrusage` tells includes the process that it was forked from."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _seconds(backend: DatabaseBackend, task_id: str) -> float:
    began = time.process_time()
    backend.get_task_meta(task_id, cache=False)
    return time.process_time() - began


def test_a_thousand_rows(sqlite: Database) -> None:
    """Each within a tenth of a second of the processor, all within 200 MB."""
    backend = app_on(sqlite.url, result_extended=True).backend
    backend.store_result("first", 1, "SUCCESS")
    write(backend)
    close(backend)
    code = f"from faults.test_thousand_rows import read; read({sqlite.url!r})"
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        env=unmeasured,
        check=True,
        capture_output=True,
        timeout=250,
    )
    longest, memory = json.loads(done.stdout)

    assert (longest < SECONDS, memory < BYTES) == (True, True), (longest, memory)
