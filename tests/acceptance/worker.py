"""A real worker in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from acceptance.broker import broker_in
from acceptance.shop import VARIABLE

#: The configuration of an app, by Celery's names.
Settings = Mapping[str, Any]

#: Seconds in which a worker must be ready, a task done and a worker gone; generous, since a loaded machine is slow.
PATIENCE = 90.0
#: Seconds between two looks at something that is awaited.
TICK = 0.02
#: What a line of the log looks like: it names the level and the logger.
LOG_FORMAT = "[%(levelname)s] [%(name)s] %(message)s"
#: A warning or worse of the result backend, ours or Celery's.
COMPLAINT = re.compile(r"^\[(WARNING|ERROR|CRITICAL)\] \[(celery_sql_results|celery\.backends)")


def settings_for(folder: Path, backend: str, **more: Any) -> Settings:
    """Settings of an app whose results go to the URL `backend`, on a broker that needs no server."""
    return {
        **broker_in(folder),
        "result_backend": backend,
        "worker_log_format": LOG_FORMAT,
        "worker_task_log_format": LOG_FORMAT,
        "worker_prefetch_multiplier": 1,
        "task_track_started": True,
        **more,
    }


class Worker:
    """`celery worker` with some settings and some arguments; see :func:`running`. Its log stays in the folder."""

    def __init__(self, folder: Path, settings: Settings, *arguments: str, name: str = "shop") -> None:
        self.name = f"{name}@localhost"
        self._log = folder / f"{name}.log"
        self._settings = json.dumps(settings)
        self._arguments = arguments
        self._asked = False  # a second time would be an order to drop what it is doing

    @property
    def log(self) -> str:
        """What it has logged and printed."""
        return self._log.read_text(errors="replace")

    @property
    def complaints(self) -> list[str]:
        """The lines of its log that report trouble with results: each retry, for one."""
        return [line for line in self.log.splitlines() if COMPLAINT.match(line)]

    def start(self) -> None:
        """Start the process and do not wait."""
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path, VARIABLE: self._settings}
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
        command = [sys.executable, "-m", "celery", "--app=acceptance.shop", "worker", f"--hostname={self.name}", *quiet]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env=environment,
                start_new_session=True,  # so that its children can be ended with it
            )

    def await_ready(self) -> None:
        """Return when it takes tasks."""
        deadline = time.monotonic() + PATIENCE
        while f"{self.name} ready." not in self.log:
            assert self._process.poll() is None, f"{self.name} ended:\n{self.log}"
            assert time.monotonic() < deadline, f"{self.name} is not ready:\n{self.log}"
            time.sleep(TICK)

    def signal(self, number: int) -> None:
        """Send a signal to its main process."""
        self._process.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Send a signal to all its processes."""
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL all its processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)

    def await_end(self) -> int:
        """Return its exit status when it has ended by itself."""
        return self._process.wait(PATIENCE)

    def ask_to_stop(self) -> None:
        """Ask it to end, as an operator does, and do not wait."""
        self._asked = True
        self._process.terminate()

    def stop(self) -> None:
        """Return when it has ended; by force, and with its children, if it does not end by itself."""
        if self._process.poll() is None and not self._asked:
            self.ask_to_stop()
        try:
            self._process.wait(PATIENCE)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


@contextmanager
def running(*workers: Worker) -> Iterator[None]:
    """Start workers, all at once, and end them after the block, which begins when all of them take tasks."""
    with ExitStack() as started:
        for worker in workers:
            worker.start()
            started.callback(worker.stop)
        for worker in workers:
            worker.await_ready()
        yield
        for worker in workers:
            worker.ask_to_stop()
