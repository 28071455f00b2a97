"""The benchmarks run, and what they write has the promised shape."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
CONTENDERS = ["ours", "celery-db", "django", "redis", "bare"]
#: Those that need nothing but what the tests have anyway.
ALWAYS = {"ours", "celery-db", "bare"}


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks, installed or not."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a short run on SQLite has written `result.json` and `ratios.svg`."""
    folder = tmp_path_factory.mktemp("benchmarks")
    written = ["--json", str(folder / "result.json"), "--plot", str(folder / "ratios.svg")]
    ended = benchmarks("--quick", "--only", "store,read", "--databases", "sqlite", *written)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def document(folder: Path) -> Any:
    """What that run has found."""
    return json.loads((folder / "result.json").read_text())


def test_names_the_machine_and_all_versions(document: Any) -> None:
    assert document["quick"] is True
    assert document["machine"].keys() == {"processor", "cores", "memory_gib", "kernel", "file_system", "load_before"}
    assert {"python", "celery-sql-results", "celery", "SQLAlchemy", "django-celery-results"} <= document[
        "versions"
    ].keys()
    assert document["servers"].keys() == {"redis", "sqlite"}
    assert document["settings"] == {"sqlite": {"PRAGMA synchronous": 2}}


def test_every_contender_takes_part_in_every_benchmark(document: Any) -> None:
    played = [(row["benchmark"], row["contender"]) for row in document["results"]]
    store = [("store", contender) for contender in (*CONTENDERS, "redis-disk", "ours-unsynced")]
    assert played == store + [("read", contender) for contender in CONTENDERS]


def test_a_contender_has_figures_or_a_reason(document: Any) -> None:
    for row in document["results"]:
        assert bool(row["seconds"]) != bool(row["failure"]), row
        assert row["seconds"] or row["contender"] not in ALWAYS, row


def test_ratios_compare_medians_with_ours(document: Any) -> None:
    medians = {(row["benchmark"], row["contender"]): row["median"] for row in document["results"]}
    for row in document["results"]:
        if row["seconds"]:
            low, high = row["quartiles"]
            assert low <= row["median"] <= high
            assert row["times_ours"] == row["median"] / medians[row["benchmark"], "ours"]


def test_the_plot_shows_each_ratio_and_how_it_was_found(folder: Path, document: Any) -> None:
    """In the order of the tables, and below them the command and the machine."""
    shown = [text.text or "" for text in ET.parse(folder / "ratios.svg").iter("{http://www.w3.org/2000/svg}text")]
    figures = [text for text in shown if re.fullmatch(r"[\d.e+-]+×", text)]
    others = [row for row in document["results"] if row["times_ours"] and row["contender"] != "ours"]
    expected = [f"{float(format(row['times_ours'], '.2g')):g}×" for row in others]

    assert figures[-len(expected) :] == expected  # those of the scale come first
    assert document["command"].startswith("scripts/bench --quick --only store,read --databases sqlite --json ")
    assert "scripts/bench --quick --only store,read --databases sqlite" in " ".join(shown)
    assert document["machine"]["kernel"] in " ".join(shown)


def test_refuses_a_name_that_it_does_not_know() -> None:
    ended = benchmarks("--only", "stor")
    assert ended.returncode == 2
    assert "'stor' is none of store, " in ended.stderr
