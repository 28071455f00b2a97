"""`scripts/soak`, for a few seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRONG = ["lost", "missing", "wrong", "twice", "repeated", "failed", "hung"]


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as the script does."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    command = [sys.executable, "-m", "faults.soak", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_counts_what_happened_and_what_went_wrong() -> None:
    ended = soak("0.1", "--databases", "sqlite", "--seed", "1")
    figures = dict(re.findall(r"│ (\w[\w ]*?) +│ +([\d,]+) │", ended.stdout))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "sqlite 3." in ended.stdout
    assert "seed 1" in ended.stdout
    assert [int(figures[name].replace(",", "")) > 0 for name in ("stores", "waits", "faults")] == [True] * 3
    assert [figures[name] for name in WRONG] == ["0"] * len(WRONG)


def test_refuses_a_database_that_it_does_not_know() -> None:
    ended = soak("1", "--databases", "oracle")

    assert ended.returncode == 2
    assert "oracle: not one of postgresql, mariadb, sqlite" in ended.stderr
