"""`scripts/soak --clusters`, for one scene."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from servers import PostgreSQL, Redis
from servers.pool import or_skip

ROOT = Path(__file__).parents[2]


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as the script does."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    command = [sys.executable, "-m", "clusters.soak", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_tells_what_has_happened_and_how_long_it_took() -> None:
    for kind in (PostgreSQL, Redis):
        with or_skip(kind.kind):
            kind().check()
    ended = soak("0", "--only", "pair-hosts", "--seed", "4")
    figures = dict(re.findall(r"│ (\w+) +│ +([\d,]+) │", ended.stdout))
    (scene,) = re.findall(r"│ ([\w ,]+?) +│ +1 │ +([\d.]+) │ +([\d.]+) │", ended.stdout)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "pair-hosts: PostgreSQL" in ended.stdout
    assert "seed 4" in ended.stdout
    assert float(scene[2]) > 0
    assert [int(figures[name].replace(",", "")) > 0 for name in ("stores", "waits", "bodies")] == [True] * 3
    assert [figures[name] for name in ("lost", "missing", "wrong", "twice", "failed", "hung")] == ["0"] * 6


def test_refuses_a_cluster_that_it_does_not_know() -> None:
    ended = soak("1", "--only", "oracle")

    assert ended.returncode == 2
    assert "invalid choice: 'oracle'" in ended.stderr
