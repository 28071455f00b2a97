"""A Celery worker: prefork, two children, a process group of its own."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from benchmarks.arena import Arena
from benchmarks.contenders import Contender, Entry
from benchmarks.player import Player
from benchmarks.worker_app import ENTRY, READY
from servers.life import Life

CHILDREN = 2


class Worker(Life):
    """A worker that ends with the process that started it, whatever it is doing."""

    kind = "worker"
    account = pwd.getpwuid(os.geteuid()).pw_name
    greeting = READY
    #: What it has not done by then, nobody waits for.
    stop_signal = signal.SIGKILL

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self._entry = entry

    def _command(self) -> list[str]:
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
        environment = [f"PYTHONPATH={path}", f"{ENTRY}={json.dumps(asdict(self._entry))}"]
        celery = [sys.executable, "-m", "celery", "--app=benchmarks.worker_app", "worker"]
        quiet = ["--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        return ["env", *environment, *celery, "--pool=prefork", f"--concurrency={CHILDREN}", *quiet]


@contextmanager
def client(arena: Arena, contender: str) -> Iterator[Player]:
    """A process whose tasks are done by a worker, both on the same broker and backend."""
    with arena.entry(contender) as bare_entry:
        entry = replace(bare_entry, broker=arena.broker(contender))
        with Worker(entry), arena.player(entry) as player:
            player.do(_first_task)
            yield player


def _first_task(contender: Contender) -> None:
    """Wait for a task: then every connection is open."""
    contender.app.tasks["benchmarks.echo"].delay(1).get()
