"""The pages that show commands have what these print today."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from celery_sql_results.cli.group import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/howto/operators.md", "docs/howto/troubleshooting.md", "docs/reference/commands.md")
#: What differs from one run, machine and release to another: versions, figures, and with them the widths of columns.
FIGURE = re.compile(r"\d+(?:[.,:]\w+)*")
DRIVER = re.compile(r"\(OperationalError: .*?\);")
SPOOL = re.compile(r"/spool/[0-9a-f]{16}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The pages as they should be."""
    folder = tmp_path_factory.mktemp("pages")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"}
    subprocess.run([sys.executable, "-m", "docs.operators", str(folder)], cwd=folder, env=env, check=True)
    return {name: (folder / name).read_text("utf-8") for name in PAGES}


def without_figures(page: str) -> list[str]:
    """The lines of a page, with what may differ made alike."""
    lines = FIGURE.sub("0", DRIVER.sub("();", SPOOL.sub("/spool/0", page))).splitlines()
    return [re.sub(r"  +", "  ", line).rstrip() for line in lines]


@pytest.mark.parametrize("name", PAGES)
def test_they_show_what_is_printed(made: Mapping[str, str], name: str) -> None:
    """If this fails, run `scripts/questions`."""
    assert without_figures((ROOT / name).read_text("utf-8")) == without_figures(made[name])


def test_every_command_answers_a_question() -> None:
    """Each is shown with what it prints."""
    page = (ROOT / "docs" / "howto" / "operators.md").read_text("utf-8")
    called = re.findall(r"^\$ (?:celery -A shop results|celery-sql-results(?: --database-url \S+)?) (\w+)", page, re.M)

    assert {*called} == {name for names in COMMANDS.values() for name in names}


def test_every_question_has_an_answer(made: Mapping[str, str]) -> None:
    """One or more commands, none of which prints nothing or was refused; and there are twenty questions or more."""
    sections = made["docs/howto/operators.md"].split("\n### ")[1:]
    blocks = [re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL) for section in sections]

    assert len(sections) >= 20
    assert [sections[at] for at, found in enumerate(blocks) if not found or "\n" not in found[0].strip()] == []
    assert [block for found in blocks for block in found if re.search(r"^Error", block, re.MULTILINE)] == []
