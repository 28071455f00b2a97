"""The pages that show commands, and what these print."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from .reference import reference
from .shell import Shell

__all__ = ["NAMES", "ROOT", "pages"]

ROOT = Path(__file__).parents[2]
README, REFERENCE = "README.md", "docs/reference/commands.md"
#: Those of one shop each, in which each may find what the one before has changed.
NAMES = ((README, "docs/howto/troubleshooting.md", "docs/howto/operators.md"), (REFERENCE,))
#: Blocks of commands whose first is one of ours; what follows each is what it has printed.
BLOCK = re.compile(r"^```console\n(\$ (?:celery -A shop|celery-sql-results) .*?)^```", re.MULTILINE | re.DOTALL)


def pages(names: Sequence[str]) -> dict[str, str]:
    """Pages as they should be. This process works in another folder from then on.

    What README shows runs as people run it, in processes of its own; the rest in this one, which is quicker.
    """
    with TemporaryDirectory() as home:
        shell = Shell(Path(home))
        return {name: _page(name, shell) for name in names}


def _page(name: str, shell: Shell) -> str:
    text = (ROOT / name).read_text("utf-8")
    if name == REFERENCE:
        return reference(text, shell)
    run = partial(shell, is_new=name == README)
    return BLOCK.sub(lambda block: f"```console\n{_again(block[1], run)}```", text)


def _again(block: str, run: Callable[[str], str]) -> str:
    lines = (line[2:] for line in block.splitlines() if line.startswith("$ "))
    return "".join(f"$ {line}\n{run(line)}" for line in lines)
