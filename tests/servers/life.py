"""The life of a server: start, end, sudden death and return."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from typing_extensions import Self

from servers import guard
from servers.process import Home, free_port

#: Seconds in which a server must have started or ended; generous, since a loaded machine is slow.
PATIENCE = 60.0
#: Seconds between two looks at a server that is starting.
TICK = 0.005


class Life:
    """A process in a temporary folder of its own; a context manager. It ends with the process that started it."""

    kind: ClassVar[str]
    #: The system user to run as where root starts the server.
    account: ClassVar[str] = "nobody"
    #: The server's settings unless told otherwise.
    defaults: ClassVar[Mapping[str, str]] = {}
    #: What the log says as soon as the server serves.
    greeting: ClassVar[str]
    #: The signal that asks for a clean and quick end.
    stop_signal: ClassVar[int] = signal.SIGTERM

    port: int = 0

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.settings = {**self.defaults, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._marked = 0

    # What a kind of server fills in

    def check(self) -> None:
        """Raise Missing if the server's programs are not installed."""

    def _install(self) -> None:
        """Fill the new folder."""

    def _command(self) -> list[str]:
        """The command that runs the server in the foreground."""
        raise NotImplementedError

    def _serves(self, since: int) -> bool:
        """Whether the server serves, that was started when its log ended at ``since``."""
        return self.greeting in self.logged(since)

    # What they share

    @property
    def folder(self) -> Path:
        """The server's temporary folder."""
        return self._home.folder

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / "log"

    def logged(self, since: int | None = None) -> str:
        """The log's text since a position in bytes, by default since the last `mark`."""
        with self.log.open("rb") as log:
            log.seek(self._marked if since is None else since)
            return log.read().decode(errors="replace")

    def mark(self) -> None:
        """Forget what was logged so far."""
        self._marked = self.log.stat().st_size

    def start(self) -> Self:
        """Install the server into a new folder and return when it serves.

        Raises:
            Missing: its programs are not installed.
        """
        self.check()
        self._home = Home(self.kind, self.account)
        self.port = free_port()
        try:
            self._install()
            self._launch()
        except BaseException:
            self._home.remove()
            raise
        return self

    def _launch(self) -> None:
        start = self.log.stat().st_size if self.log.exists() else 0
        self._process = process = self._home.spawn(self._command(), self.log)
        deadline = time.monotonic() + PATIENCE
        while not self._serves(start):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} did not start: {self.logged(start)}")
            time.sleep(TICK)

    def shutdown(self) -> None:
        """End the server cleanly and keep its folder; `restart` brings it back."""
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(PATIENCE)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL the server and its children and keep its folder; `restart` brings it back."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        guard.evict(self.folder)
        self._process = None

    def restart(self) -> None:
        """Start again on the same folder and port; ends the server cleanly first if it runs."""
        self.shutdown()
        self._launch()

    def ensure(self) -> None:
        """Bring the server back if it was killed, was shut down or died."""
        if self._process is None or self._process.poll() is not None:
            self.restart()

    def stop(self) -> None:
        """End the server cleanly and remove its folder."""
        try:
            self.shutdown()
        finally:
            self._home.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
