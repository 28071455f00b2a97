"""What is shown: one line for each step, and the rows as a table."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

#: Rows that are shown of the beginning and of the end of a long table.
HEAD, TAIL = 6, 4
COLORS = {"SUCCESS": "green", "FAILURE": "red"}

if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")  # whatever is stored can be shown, also where UTF-8 cannot
console = Console(markup=False, highlight=False)


@dataclass
class Step:
    """One thing that is being done."""

    title: str
    status: Status
    outcome: str = ""
    started: float = field(default_factory=time.perf_counter)

    def progress(self, text: str) -> None:
        """Show how far it is."""
        self.status.update(f"{self.title}: {text}")

    def __str__(self) -> str:
        seconds = time.perf_counter() - self.started
        return f"{seconds:7.3f} s  {self.title}{self.outcome and ': '}{self.outcome}"


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show a step while it is done, and how long it took and its `outcome` when it is."""
    with console.status(title, spinner="line") as status:
        done = Step(title, status)
        yield done
    console.print("ok", style="bold green", end="")
    say(str(done))


def say(text: str, style: str = "") -> None:
    """Show some lines."""
    console.print(text, style=style, soft_wrap=True)


def say_failed(error: Exception, log: str) -> None:
    """Show what went wrong, and the end of the worker's log if there is one."""
    if log:
        say(f"\nThe worker's log ends with:\n{log}\n", style="dim")
    say(str(error) or repr(error), style="bold red")


def say_rows(rows: Sequence[Any]) -> None:
    """Show rows of the task table, the middle of many left out."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    for title in ("task", "name", "state", "retries", "worker", "done at"):
        table.add_column(title, no_wrap=True)
    table.add_column("result")
    for row in rows[:HEAD]:
        _add(table, row)
    table.add_row("...", f"{len(rows) - HEAD - TAIL} more")
    for row in rows[-TAIL:]:
        _add(table, row)
    console.print(table)


def _add(table: Table, row: Any) -> None:
    cells = (Text(_readable(value), no_wrap=True, overflow="ellipsis") for value in row)
    table.add_row(*cells, style=COLORS.get(row.status))


def _readable(value: Any) -> str:
    """Payloads are JSON in UTF-8; times are `datetime` or text, as the driver likes, and always UTC."""
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text[11:19] if text[4:5] == text[7:8] == "-" else text
