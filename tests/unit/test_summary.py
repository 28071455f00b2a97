"""What the end of a test run says in plain words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
SOURCE = """
import itertools
import pytest
from servers.pool import MISSING

tries = {name: itertools.count(1) for name in ("once", "twice", "always")}

def test_good(): pass
def test_fails_once(): assert next(tries["once"]) > 1
def test_fails_twice(): assert next(tries["twice"]) > 2
def test_fails_always(): assert next(tries["always"]) > 9
def test_elsewhere(): pytest.skip(MISSING + "nosuchd; install it")
"""


def run(folder: Path, *arguments: str) -> list[str]:
    """What a run of these tests says in capitals, after pytest's own summary."""
    (folder / "test_them.py").write_text(SOURCE)
    command = [sys.executable, "-m", "pytest", "-p", "summary", "--reruns", "2", "-n", "1", *arguments, "test_them.py"]
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=environment)
    said = ended.stdout.rpartition(" short test summary info ")[2].splitlines()
    return [line for line in said if re.match("[A-Z0-9]+ [A-Z0-9]+", line)]


def test_what_failed_and_passed_when_repeated_is_listed_and_what_was_not_tested(tmp_path: Path) -> None:
    """What fails each time is among the failures, and not here."""
    assert run(tmp_path) == [
        "FAILED ONCE, PASSED WHEN REPEATED: test_them.py::test_fails_once",
        "FAILED 2 TIMES, PASSED WHEN REPEATED: test_them.py::test_fails_twice",
        "NOT TESTED, server missing: nosuchd; install it",
    ]


def test_nothing_is_said_where_all_is_well(tmp_path: Path) -> None:
    assert run(tmp_path, "-k", "good") == []
