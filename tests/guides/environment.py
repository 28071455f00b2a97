"""Virtual environments with frameworks that the tests' own has not: made once, and used again by later runs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Where they are kept: scripts that clean up remove `build`.
FOLDER = ROOT / "build" / "guides"
#: What all of them have: this package as its source is, and the drivers of every database.
PROJECT = f"{ROOT}[postgresql,mysql]"
#: Seconds that an installation may take, and one command in it.
INSTALLING, RUNNING = 240, 120


class Environment:
    """A virtual environment with some packages.

    Args:
        name: what its folder is called.
        requirements: the packages; those of all are added.
    """

    def __init__(self, name: str, requirements: Sequence[str]) -> None:
        self._folder = FOLDER / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
        self.python = self._folder / "bin" / "python"
        wanted = [*requirements, *_same("celery", "SQLAlchemy", "alembic")]
        FOLDER.mkdir(parents=True, exist_ok=True)
        with (FOLDER / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several processes run tests
            self._make(wanted)

    def _make(self, wanted: Sequence[str]) -> None:
        ready, text = self._folder / "ready", "\n".join([sys.base_prefix, PROJECT, *wanted])
        if ready.exists() and ready.read_text() == text:
            return
        venv.create(self._folder, with_pip=True, clear=True)
        install = [self.python, "-m", "pip", "install", "--quiet", "-e", PROJECT, *wanted]
        ended = subprocess.run(install, check=False, capture_output=True, text=True, timeout=INSTALLING)
        if ended.returncode:  # the index cannot be reached, or what compiles a driver is missing
            give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            give_up(f"{' '.join(wanted)} cannot be installed: {ended.stderr}")
        ready.write_text(text)

    def run(self, *command: str, folder: Path, **environment: str) -> str:
        """Run `python COMMAND` in a folder, where a warning is an error of the test; return what it prints."""
        ended = self.ended(*command, folder=folder, **environment)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def ended(self, *command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python COMMAND` in a folder to its end, whatever that is."""
        variables = {**os.environ, **environment}
        return subprocess.run(
            [self.python, *command],
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env=variables,
            timeout=RUNNING,
        )


def _same(*packages: str) -> list[str]:
    """The releases that the tests themselves run with."""
    return [f"{package}=={version(package)}" for package in packages]
