"""The programs are there, on a terminal and in a pipe."""

from __future__ import annotations

import pytest

from cli.rows import SOME
from cli.run import Program


@pytest.mark.usefixtures("stored")
def test_in_a_pipe(program: Program) -> None:
    """One line for each result, below the titles."""
    ended = program("list")

    assert (ended.code, ended.told, len(ended.lines)) == (0, "", 1 + len(SOME))


@pytest.mark.usefixtures("stored")
def test_on_a_terminal(program: Program) -> None:
    """The same with colours, which a test can leave out."""
    ended = program.on_terminal("list", width=60)

    assert (ended.code, b"\x1b[" in ended.out, len(ended.lines)) == (0, True, 1 + len(SOME))


@pytest.mark.usefixtures("stored")
def test_without_rich(program: Program) -> None:
    """Where it is not installed, a terminal gets plain text."""
    ended = program.without_rich.on_terminal("list", width=60)

    assert (ended.code, b"\x1b[" in ended.out, len(ended.lines)) == (0, False, 1 + len(SOME))
