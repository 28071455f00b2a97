"""How commands print: a table on a terminal, plain text in a pipe, JSON lines or CSV for programs.

What is printed may come from anybody who can send a task, so a terminal never gets a control character of it.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from io import StringIO
from typing import Any, NamedTuple, TextIO

import click

from celery_sql_results.boundaries import caught

from .times import Clock, iso, took

__all__ = ["Column", "Output", "is_terminal", "plain"]

#: How a state looks.
STYLES = {"SUCCESS": "green", "FAILURE": "red", "REVOKED": "magenta", "RETRY": "yellow", "STARTED": "cyan"}


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        key: the name in the row, and in JSON and CSV.
        title: what stands above it.
        least: the width of a terminal below which it is left out.
        form: ``text``, ``time``, ``seconds`` or ``number``.
    """

    key: str
    title: str
    least: int = 0
    form: str = "text"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody sits at a stream; there is none where a shell has closed it."""
    return stream is not None and stream.isatty()


def plain(value: object) -> str:
    """A text on one line, without anything that a terminal obeys."""
    text = value if isinstance(value, str) else str(value)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class Output:
    """Prints what a command has found.

    Args:
        form: ``table``, ``json`` or ``csv``.
        clock: shows times.
        color: whether colours may be used on a terminal.
    """

    def __init__(self, form: str, clock: Clock, color: bool) -> None:
        self.form, self.clock = form, clock
        self.is_terminal = is_terminal(sys.stdout)
        self._color = color and self.is_terminal

    @property
    def width(self) -> int:
        """Columns of the terminal; in a pipe, without limit."""
        return shutil.get_terminal_size().columns if self.is_terminal else 10_000

    def rows(self, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> int:
        """Print rows as they come, and return how many there were. JSON has all of a row, also what no column shows."""
        found = list(rows)
        if self.form == "json":
            for row in found:
                self.json(row)
        elif self.form == "csv":
            self._csv(columns, found)
        else:
            self._table([each for each in columns if each.least <= self.width], found)
        return len(found)

    def fields(self, fields: Mapping[str, Any], columns: Sequence[Column]) -> None:
        """Print one thing, a line for each of its fields that are known."""
        shown = [(each.title, self.cell(each, fields.get(each.key))) for each in columns]
        wide = max(len(title) for title, _ in shown)
        for title, text in shown:
            if text:
                self.line(f"{title:<{wide}}  {text}")

    def block(self, title: str, text: str) -> None:
        """Print a text of several lines under a title."""
        self.line(f"{title}:")
        for line in text.splitlines():
            self.line(f"  {plain(line)}")

    def line(self, text: str = "") -> None:
        """Print a line for people; nothing where programs read."""
        if self.form == "table":
            click.echo(plain(text))

    def note(self, text: str) -> None:
        """Say something that is no answer, such as that there is none."""
        click.echo(plain(text), err=True)

    def json(self, value: Any) -> None:
        """Print a value as one line of JSON."""
        click.echo(json.dumps(value, default=_as_json, ensure_ascii=True))

    def _csv(self, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
        written = StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow([column.key for column in columns])
        for row in rows:
            cells = (row.get(column.key) for column in columns)
            writer.writerow(["" if cell is None else plain(_as_json(cell)) for cell in cells])
        click.echo(written.getvalue(), nl=False)

    def cell(self, column: Column, value: Any) -> str:
        """What stands in a column for a value."""
        if value is None:
            return ""
        forms: dict[str, Callable[[Any], str]] = {"time": self.clock, "seconds": took, "number": lambda n: f"{n:,}"}
        return plain(forms.get(column.form, str)(value))

    def _table(self, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
        cells = [[self.cell(column, row.get(column.key)) for column in columns] for row in rows]
        if self.is_terminal and self._rich(columns, cells):
            return
        titles = [column.title for column in columns]
        widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
        for line in (titles, *cells):
            click.echo("  ".join(map(str.ljust, line, widths)).rstrip())

    def _rich(self, columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> bool:
        """Print a table with rich, if that is installed."""
        with caught(ImportError) as missing:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        if missing.error is not None:
            return False
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            is_right = column.form in ("number", "seconds")
            table.add_column(column.title, justify="right" if is_right else "left", no_wrap=True, overflow="ellipsis")
        for line in cells:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in line))
        Console(no_color=not self._color, highlight=False).print(table)
        return True


def _as_json(value: Any) -> Any:
    """What JSON has no form for."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    return value if isinstance(value, (str, int, float)) else str(value)
