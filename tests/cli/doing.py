"""What the tests of commands that change something share: a project whose tasks fail or succeed as a file says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, Task, chord

from cli.run import PATIENCE, environment

#: Seconds between two looks at what is awaited.
TICK = 0.05
settings = json.loads(os.environ.get("CLI_SETTINGS", "{}"))
app = Celery("doing", set_as_current=False)
app.conf.update(settings)


@app.task(name="doing.pay", bind=True)
def pay(self: Task, folder: str, *args: Any, **kwargs: Any) -> str:
    """Note what it was called with, and fail unless there is a file `open`."""
    call = {"args": args, "kwargs": kwargs, "id": self.request.id, "root": self.request.root_id}
    with Path(folder, "calls").open("a") as calls:
        calls.write(f"{json.dumps(call)}\n")
    if not Path(folder, "open").exists():
        raise ValueError("the shop is closed")
    return "paid"


@app.task(name="doing.total")
def total(numbers: list[Any]) -> int:
    """The body of a chord."""
    return len(numbers)


def calls_in(folder: Path) -> list[dict[str, Any]]:
    """What the task was called with so far."""
    path = folder / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sender(**given: Any) -> Celery:
    """An app that sends these tasks, with settings of its own."""
    found = Celery("doing", set_as_current=False)
    found.conf.update(given)
    return found


def chord_of(app: Celery, *header: Any, **options: Any) -> Any:
    """A chord of some tasks and `total`, sent."""
    return chord(header, app.signature("doing.total", app=app), app=app).apply_async(**options)


def await_(condition: Callable[[], Any]) -> Any:
    """What a condition gives as soon as that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(TICK)
    return found


@contextmanager
def worker(folder: Path, **given: Any) -> Iterator[None]:
    """A worker with these settings, for the length of the block."""
    log = folder / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "cli.doing", "worker", "--pool=solo", "--loglevel=INFO"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--hostname=shop@localhost"]
    with log.open("wb") as out:
        env = environment(CLI_SETTINGS=json.dumps(given))
        process = subprocess.Popen([*command, *quiet], env=env, stdout=out, stderr=out, cwd=folder)
    try:
        await_(lambda: "ready." in log.read_text(errors="replace") or process.poll() is not None)
        assert process.poll() is None, log.read_text(errors="replace")
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
