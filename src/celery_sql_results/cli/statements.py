"""How SQL is printed that somebody may run."""

from __future__ import annotations

from collections.abc import Iterable

from .desk import Desk

__all__ = ["show"]


def show(desk: Desk, statements: Iterable[str]) -> None:
    """Print statements, each ended by a semicolon; as JSON, a value for each."""
    for statement in statements:
        if desk.out.form == "json":
            desk.out.json({"sql": statement})
            continue
        for line in f"{statement};".splitlines():
            desk.out.line(line)
