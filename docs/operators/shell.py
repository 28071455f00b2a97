"""Runs the lines that a page shows, and gives what people would read: the same whenever it is run."""

from __future__ import annotations

import importlib
import io
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from celery.bin.celery import celery

from celery_sql_results.cli.group import PREFIX
from celery_sql_results.cli.program import program

from .world import make

#: The world's now, on the pages.
NOON = datetime.fromisoformat("2026-03-01 12:00")
TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")
#: Where the shop lives, on the pages.
HOME = "/srv/shop"
#: The ends of a line that a shell would see to.
HEAD = re.compile(r"(.*) \| head -(\d+)")
#: What the environment of whoever runs this must not change.
STRANGE = re.compile(r"CELERY_|(NO_COLOR|FORCE_COLOR|COLUMNS)$")


class Shell:
    """A shell in the folder of a small shop.

    Args:
        folder: empty; it becomes the working directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._code = 0
        self._forget_strange()
        os.environ["TZ"] = "UTC"
        time.tzset()
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            self._now: datetime = other.submit(make, self._folder).result()
        os.chdir(self._folder)
        sys.path.insert(0, str(self._folder))

    @staticmethod
    def _forget_strange() -> None:
        for name in filter(STRANGE.match, list(os.environ)):
            del os.environ[name]

    @staticmethod
    def _shop() -> Any:
        """The project, imported anew: a command may change what it has found of the settings."""
        sys.modules.pop("shop", None)
        importlib.invalidate_caches()
        return importlib.import_module("shop")

    def __call__(self, line: str, is_new: bool = False) -> str:
        """What a line prints, what it says on the side included.

        Args:
            line: a command, with `| head -N` if need be; or `echo $?`.
            is_new: whether to start a process for it, which takes longer and prints the same.
        """
        if line == "echo $?":
            return f"{self._code}\n"
        cut = HEAD.fullmatch(line)
        words = shlex.split(cut[1] if cut else line, comments=True)
        found = self._started(words) if is_new else self._called(words)
        lines = self._stable(found).splitlines(keepends=True)
        return "".join(lines[: int(cut[2])] if cut else lines)

    def _started(self, words: list[str]) -> str:
        module = {"celery": "celery", "celery-sql-results": "celery_sql_results"}[words[0]]
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(self._folder)]))
        ended = subprocess.run(  # noqa: S603 - what our own pages say
            [sys.executable, "-m", module, *words[1:]],
            env={**os.environ, "PYTHONPATH": path},
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._code = ended.returncode
        return ended.stdout

    def _called(self, words: list[str]) -> str:
        main, prefix = {"celery": (celery, "CELERY"), "celery-sql-results": (program, PREFIX)}[words[0]]
        self._forget_strange()  # what an option of the call before has set
        self._shop()
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        with redirect_stdout(out), redirect_stderr(out):
            try:
                main(words[1:], prog_name=words[0], auto_envvar_prefix=prefix)
            except SystemExit as end:
                self._code = int(end.code or 0)
        return out.buffer.getvalue().decode()

    def _stable(self, text: str) -> str:
        """The same with times as if it were noon, and nothing of this machine."""
        text = text.replace(str(self._folder), HOME).replace(platform.platform(), "Linux-6.12.0-x86_64")
        return TIME.sub(self._moved, text)

    def _moved(self, found: re.Match[str]) -> str:
        moved = NOON + (datetime.fromisoformat(found[0]) - self._now)
        return moved.isoformat(found[0][10])
