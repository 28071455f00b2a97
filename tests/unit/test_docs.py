"""What the pages for users must name: every setting, every public name, every column; and that their code is code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import celery_sql_results as package
from celery_sql_results.dialects import impl_for
from celery_sql_results.models import models_for

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "celery_sql_results"
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")
LINKING = [*PAGES, *(ROOT / name for name in BESIDE)]

#: A name of a setting, as the source reads it: `reader.flag("database_listen", …)`, `conf.result_chord_join_timeout`.
IN_SETTINGS = re.compile(r'"((?:database|result)_\w+|accept_content)"')
ELSEWHERE = re.compile(r'conf\.get\("(\w+)"|conf\.(result_\w+|database_\w+)')
#: A table, with the heading of its section before it.
SECTION = re.compile(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
#: The first cell of a line of a table.
FIRST_CELL = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def read(page: Path) -> str:
    """The text of a page."""
    return page.read_text(encoding="utf-8")


def settings_read() -> set[str]:
    """The settings that the package reads, by a look at its source."""
    found = set(IN_SETTINGS.findall(read(SOURCE / "settings.py")))
    for module in SOURCE.rglob("*.py"):
        found |= {name for names in ELSEWHERE.findall(read(module)) for name in names if name}
    return found


def snippets(page: Path) -> Iterator[str]:
    """The pieces of Python on a page."""
    yield from re.findall(r"^```python\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)


def test_every_setting_has_its_entry() -> None:
    """In its own line of a table, or of a list of definitions."""
    page = read(DOCS / "reference" / "settings.md")
    described = {*FIRST_CELL.findall(page), *re.findall(r"^`(\w+)`\n: ", page, re.MULTILINE)}
    expected = settings_read()

    assert {"database_listen", "result_chord_join_timeout", "result_backend_thread_safe"} <= expected
    assert expected - described == set()


def test_every_logger_is_described() -> None:
    """Each with the levels at which it says something."""
    lines = re.findall(
        r"^\| `(celery_sql_results[\w.]*)` \| ([A-Z, ]+) \|", read(DOCS / "reference" / "logging.md"), re.MULTILINE
    )
    source = {module.relative_to(SOURCE).with_suffix(""): read(module) for module in SOURCE.rglob("*.py")}
    loggers = {path: text for path, text in source.items() if "logging.getLogger(__name__)" in text}
    expected = {
        ".".join((SOURCE.name, *path.parts)): {
            level.lower()
            for level in re.findall(r"\b(?:logger\.|isEnabledFor\(logging\.)(debug|info|warning|error)\b", text, re.I)
        }
        for path, text in loggers.items()
    }

    assert {name: set(levels.lower().split(", ")) for name, levels in lines} == expected


def test_every_public_name_is_described() -> None:
    """In the table of the page; what each of them is, Sphinx takes from its docstring."""
    page = read(DOCS / "reference" / "api.md")

    assert set(re.findall(r"`(\w+)`", page)) & set(package.__all__) == set(package.__all__)
    assert ".. automodule:: celery_sql_results\n" in page


@pytest.mark.parametrize("table", models_for().tables_for(impl_for("postgresql")), ids=lambda table: table.name)
def test_every_column_is_described(table: sa.Table) -> None:
    """In the order of the table, and none that is not there."""
    sections = dict(SECTION.findall(read(DOCS / "reference" / "schema.md")))

    assert FIRST_CELL.findall(sections[table.name]) == table.columns.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_is_code(page: Path) -> None:
    """Each piece of Python can be compiled."""
    for snippet in snippets(page):
        ast.parse(snippet, str(page))


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "quickstart.md"], ids=lambda page: page.name)
def test_first_piece_of_code_runs(page: Path, tmp_path: Path) -> None:
    """As somebody would who copied it to a file, without a warning."""
    module = tmp_path / "shop.py"
    module.write_text(next(snippets(page)), encoding="utf-8")
    check = "import shop; assert shop.app.conf.result_backend.startswith('sql+')"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", check], check=False, capture_output=True, text=True, cwd=tmp_path
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def anchors(page: Path) -> set[str]:
    """The names by which links lead to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def leads_nowhere(page: Path, link: str, anchor: str) -> bool:
    """Whether a link misses its file, or the heading there."""
    target = page.parent / link if link else page
    return not target.exists() or (anchor != "" and anchor not in anchors(target))


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Those to files of this repository, and to the headings in them."""
    links = re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", read(page))

    assert [(link, anchor) for link, anchor in links if leads_nowhere(page, link, anchor)] == []


def test_changelog_names_the_version() -> None:
    """As the first heading of a release: the newest comes first."""
    newest = re.search(r"^## \[?([\w.]+)", read(ROOT / "CHANGELOG.md"), re.MULTILINE)

    assert newest is not None
    assert newest[1] == package.__version__


def test_every_page_is_in_the_index() -> None:
    """So that a reader finds it."""
    index = read(DOCS / "index.md")
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")} - {"index"}

    assert {page for page in pages if f"\n{page}\n" not in index} == set()


def test_every_test_that_reliability_names_exists() -> None:
    """What the page promises is shown by a test; those are files of `tests/faults`, with or without a function."""
    named = re.findall(r"`([./\w]+\.py)(?:::(\w+))?`", read(DOCS / "explanation" / "reliability.md"))
    folder = DOCS.parent / "tests" / "faults"
    missing = [(file, test) for file, test in named if f"def {test or 'test_'}" not in read(folder / file)]

    assert len(named) > 20
    assert missing == []
