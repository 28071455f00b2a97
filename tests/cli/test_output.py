"""What is printed: on terminals of any width, with and without colours, and whatever is in the rows."""

from __future__ import annotations

import shlex
import subprocess
import unicodedata

import pytest

from celery_sql_results import DatabaseBackend
from cli.rows import failure, put, row
from cli.run import OBEYED, PATIENCE, Ended, Program
from servers.pool import on

#: What a terminal obeys, or shows as something else than it is, and what breaks lines.
HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b31m\r\n\tb\u202egpj\u2066\u200b\u2028\x85\x00c"
#: The same where no database takes a NUL.
WITHOUT_NUL = HOSTILE.replace("\x00", "")

on_sqlite = on("sqlite")


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("is_without", [False, True])
@pytest.mark.parametrize("width", [60, 160])
@on_sqlite
def test_width(results: Program, width: int, is_without: bool) -> None:
    """A narrow terminal leaves columns out; with rich, no line is wider than it. Ids are whole in a wide one."""
    program = results.without_rich if is_without else results
    ended = program.on_terminal("list", width=width)

    titles = ended.lines[0].split()
    assert ended.code == 0
    assert titles == ["when", "state", "task", *(["ran", "worker"] if width == 160 else []), "id"] + (
        ["error"] if width == 160 else []
    )
    assert is_without or max(map(len, ended.lines)) <= width
    assert width == 60 or all(any(id_ in line for line in ended.lines) for id_ in ("11112222-bbbb", "55555555-ffff"))


@pytest.mark.usefixtures("stored")
@on_sqlite
def test_colours(results: Program) -> None:
    """On a terminal only, and not where somebody said no."""
    said = {
        "terminal": results.on_terminal("list"),
        "-C": results.on_terminal("list", before=["-C"]),
        "NO_COLOR": results.but(NO_COLOR="1").on_terminal("list"),
        "pipe": results("list"),
        "without rich": results.without_rich.on_terminal("list"),
        "show": results.but(NO_COLOR="1").on_terminal("show", "3333"),
    }

    coloured = {name for name, ended in said.items() if b"\x1b[32m" in ended.out}
    assert coloured == {"terminal"}


def hostile(backend: DatabaseBackend) -> None:
    """Two rows that have what no terminal should get wherever text is."""
    text = WITHOUT_NUL
    named = {"name": text, "worker": text, "queue": text, "parent_id": text, "root_id": text, "group_id": text}
    traceback = f"Traceback:\n  {text}\nshop.{text}Error: {text}"
    put(
        backend,
        failure("bad", f"{text}: {text}", **{**named, "traceback": traceback, "result": repr(text).encode()}),
        row(f"id{text}", **{**named, "status": text[:40], "result": f'"{text}"'.encode()}),
    )


def harmful(ended: Ended) -> list[str]:
    """What is left in an output that a terminal obeys, beside colours, or that changes how a line looks."""
    text = (ended.out + ended.err).decode()
    for known in ("\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m"):
        text = text.replace(known, "")
    return [each for each in text.replace("\r\n", "\n") if unicodedata.category(each) in BAD and each != "\n"]


#: Categories of characters: control, format, separators of lines and paragraphs, surrogates.
BAD = {"Cc", "Cf", "Zl", "Zp", "Cs"}
#: Calls that print what is in rows.
CALLS = (
    *(("list",), ("list", "--json"), ("list", "--csv"), ("list", "--state", WITHOUT_NUL)),
    *(("show", "bad"), ("show", "id"), ("show", "bad", "--full"), ("show", "bad", "--json"), ("show", WITHOUT_NUL)),
)


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_hostile_content_in_a_pipe(results: Program, backend: DatabaseBackend, call: tuple[str, ...]) -> None:
    """What reads it may be a terminal in the end, so no byte of it is printed as it is."""
    hostile(backend)

    ended = results.here(*call)

    assert harmful(ended) == []
    assert ended.code in (0, 1, 3, 4)


@pytest.mark.parametrize("is_without", [False, True])
@on_sqlite
def test_hostile_content_on_a_terminal(results: Program, backend: DatabaseBackend, is_without: bool) -> None:
    """Nor on a terminal, and the table keeps its lines."""
    hostile(backend)
    program = results.without_rich if is_without else results

    listed, shown = program.on_terminal("list"), program.on_terminal("show", "bad")

    assert (harmful(listed), harmful(shown), len(listed.lines)) == ([], [], 3)


def test_hostile_content_for_programs(results: Program, backend: DatabaseBackend) -> None:
    """One line of JSON for each row, from which the text comes back; one row of CSV, in which it is escaped."""
    hostile(backend)

    listed = results.here("list", "--json")
    rows = results.here("list", "--csv").csv

    assert [each["worker"] for each in listed.json] == [WITHOUT_NUL, WITHOUT_NUL]
    assert listed.out.count(b"\n") == 2
    assert [len(each) for each in rows] == [7, 7]
    assert {each["worker"] for each in rows} == {
        "a\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\r\\n\\tb\\u202egpj\\u2066\\u200b\\u2028\\x85c"
    }


@on_sqlite
def test_a_reader_that_has_seen_enough(results: Program, backend: DatabaseBackend) -> None:
    """`| head -1` ends a list without a word, and not with a traceback."""
    put(backend, *(row(f"{number:05}", done=number, name="n" * 150) for number in range(2000)))
    command = shlex.join(results.command("list", "--limit", "2000", "--json"))

    ended = subprocess.run(
        ["bash", "-c", f"{command} | head -1"],
        env=results.environment, capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip

    assert (ended.stdout.count(b"\n"), ended.stderr) == (1, b"")


def test_the_tests_know_what_a_terminal_obeys() -> None:
    """What is left out to read a terminal is nothing that a test looks for."""
    assert OBEYED.sub("", "\x1b[32mSUCCESS\x1b[0m") == "SUCCESS"
