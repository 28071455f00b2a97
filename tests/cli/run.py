"""Runs programs as people and other programs do: in a pipe, or on a terminal of some width."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery_sql_results.cli.program import program as commands

#: Seconds after which a program is ended that should have ended by itself.
PATIENCE = 60.0
TESTS = Path(__file__).parents[1]
#: A folder that takes rich from whoever has it on its path.
WITHOUT_RICH = Path(__file__).parent / "without_rich"
#: What the environment of whoever runs the tests must not change.
STRANGE = re.compile(r"CELERY_|CLI_|LC_|PG|MYSQL_|(NO_COLOR|FORCE_COLOR|COLUMNS|LINES|TZ|LANG|LANGUAGE|TERM)$")
#: What a terminal obeys rather than shows.
OBEYED = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)")


@dataclass(frozen=True)
class Ended:
    """How a program has ended: its exit code, and the bytes that it wrote. A terminal gets both kinds in `out`."""

    code: int
    out: bytes
    err: bytes = b""

    @property
    def text(self) -> str:
        """What can be read of the output: without the colours of a terminal and its ends of lines."""
        return OBEYED.sub("", self.out.decode()).replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        """The lines of the output, without spaces at their ends."""
        return [line.rstrip() for line in self.text.splitlines()]

    @property
    def told(self) -> str:
        """What was said on the side."""
        return self.err.decode()

    @property
    def json(self) -> list[Any]:
        """The values of an output of JSON lines."""
        return [json.loads(line) for line in self.out.decode().split("\n") if line]

    @property
    def csv(self) -> list[dict[str, str]]:
        """The rows of an output of CSV."""
        return list(csv.DictReader(io.StringIO(self.out.decode(), newline="")))


def environment(**more: str) -> dict[str, str]:
    """The environment of a program: like ours, as far as it changes nothing of what is tested."""
    clean = {name: value for name, value in os.environ.items() if not STRANGE.match(name)}
    path = os.pathsep.join(filter(None, [more.pop("PYTHONPATH", ""), str(TESTS), clean.get("PYTHONPATH", "")]))
    return {**clean, "PYTHONPATH": path, "LANG": "C.UTF-8", "TZ": "UTC", "TERM": "xterm-256color", **more}


def in_pipe(command: Sequence[str], env: Mapping[str, str], stdin: bytes = b"") -> Ended:
    """Run a program whose input and output are pipes."""
    ended = subprocess.run(command, env=env, input=stdin, capture_output=True, timeout=PATIENCE, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def on_terminal(command: Sequence[str], env: Mapping[str, str], width: int, typed: bytes = b"") -> Ended:
    """Run a program on a terminal with so many columns, at which somebody has `typed` already."""
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        process = subprocess.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        os.write(master, typed)
        out = _read(master, process)
        return Ended(process.wait(PATIENCE), out)
    finally:
        os.close(master)


def _read(master: int, process: subprocess.Popen[bytes]) -> bytes:
    """All that a terminal gets until nobody has it open any more."""
    found, deadline = b"", time.monotonic() + PATIENCE
    while select.select([master], [], [], max(0, deadline - time.monotonic()))[0]:
        try:
            read = os.read(master, 65536)
        except OSError:  # how Linux tells of the end
            return found
        if not read:
            return found
        found += read
    process.kill()
    raise TimeoutError(f"{process.args!r} did not end; so far: {found!r}")


@dataclass(frozen=True)
class Program:
    """One of the two ways to our commands, on a database.

    Attributes:
        name: `celery` or `celery-sql-results`.
        url: of the database, without `sql+`.
        settings: more of the app; of the second program, it knows what its options say.
        env: more variables of the environment.
    """

    name: str
    url: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def but(self, **changes: Any) -> Program:
        """The same, with another `name`, `url` or `settings`, or with variables of the environment added."""
        known = {name: changes.pop(name) for name in ("name", "url", "settings") if name in changes}
        return Program(**{**vars(self), **known, "env": {**self.env, **changes}})

    @property
    def without_rich(self) -> Program:
        """The same where rich is not installed."""
        return self.but(PYTHONPATH=str(WITHOUT_RICH))

    def command(self, *arguments: str, before: Sequence[str] = ()) -> list[str]:
        """The words of a call; `before` are options that stand before the name of the command."""
        if self.name == "celery":
            return [sys.executable, "-m", "celery", "-A", "cli.shop", *before, "results", *arguments]
        return [sys.executable, "-m", "celery_sql_results", *before, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a call, which also says where the database is."""
        settings = json.dumps({"result_backend": f"sql+{self.url}", **self.settings})
        return environment(**{"CLI_SETTINGS": settings, "CELERY_RESULTS_DATABASE_URL": self.url, **self.env})

    def __call__(self, *arguments: str, stdin: bytes = b"", before: Sequence[str] = ()) -> Ended:
        """Run a command in a pipe."""
        return in_pipe(self.command(*arguments, before=before), self.environment, stdin)

    def on_terminal(self, *arguments: str, width: int = 160, typed: bytes = b"", before: Sequence[str] = ()) -> Ended:
        """Run a command on a terminal."""
        return on_terminal(self.command(*arguments, before=before), self.environment, width, typed)

    def here(self, *arguments: str) -> Ended:
        """Run a command of `celery-sql-results` in this process: the same, but much quicker than a new one."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err):
            try:
                commands(["--database-url", self.url, *arguments], auto_envvar_prefix="CELERY_RESULTS")
            except SystemExit as end:
                code = end.code
        return Ended(int(code or 0), *(file.buffer.getvalue() for file in (out, err)))
