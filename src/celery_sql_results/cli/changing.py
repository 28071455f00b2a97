"""What commands have in common that change something: they count, ask, tell how far they are, and can be stopped."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import sqlalchemy as sa

from celery_sql_results.boundaries import caught, undone

from .desk import DONE, INTERRUPTED, Desk, Ending
from .output import is_terminal

__all__ = ["agreed", "changing", "ended", "may", "progress", "stoppable", "through"]

#: Seconds between two lines that tell how far a command is, where no bar can be drawn.
TOLD_EVERY = 5.0


def changing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all commands that change something: ``dry_run`` and ``yes``."""
    function = click.option("--yes", is_flag=True, help="Do it without asking.")(function)
    return click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")(function)


def may(desk: Desk, right: str, *tables: sa.Table) -> None:
    """See to it that this role may do something, before anything is done.

    Raises:
        Ending: it may not, or the server takes no writes.
    """
    for table in tables:
        found = desk.state.tables.get(table)
        if found is not None and right in found.denied:
            raise Ending(f"this role may not {right} in {table.name}: see grants")
        if found is not None and found.reads_only:
            raise Ending(f"{desk.backend.database.name} only reads now: is it a standby?")


def agreed(what: str, yes: bool) -> None:
    """Let a person agree, who sits at a terminal; elsewhere, that must have been said.

    Args:
        what: is about to be done: ``delete 40 results``.
        yes: whether to ask nobody.

    Raises:
        Ending: nobody has agreed.
    """
    if yes:
        return
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise Ending(f"this would {what}: --yes does it without asking, --dry-run only says so. Nothing was done")
    try:
        is_meant = click.confirm(f"{what[0].upper()}{what[1:]}?", err=True)
    except click.Abort:
        raise Ending("nothing was done", INTERRUPTED) from None
    if not is_meant:
        raise Ending("nothing was done")


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """For the length of the block, Ctrl-C only asks: gives what tells whether it did. The second one ends at once."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def through(desk: Desk, doing: str, total: int | None, steps: Iterable[int]) -> tuple[int, bool]:
    """Go through the steps of a command, each of which is done when it says how much it was.

    Args:
        desk: prints.
        doing: what they do: ``deleting``.
        total: how much it will be in all, if that is known.
        steps: do the work.

    Returns:
        how much was done, and whether somebody has stopped it.
    """
    done = 0
    with (
        undone(lambda: desk.out.note(f"{doing}: {_of(done, total)} until then")),
        stoppable() as is_stopped,
        progress(desk, doing, total) as tell,
    ):
        for some in steps:
            done += some
            tell(done)
            if is_stopped():
                return done, True
    return done, False


def ended(desk: Desk, told: str, stopped: bool, **summary: Any) -> int:
    """Say what was done, and return the exit code.

    Args:
        desk: prints.
        told: what people read.
        stopped: whether there may be more to do.
        summary: what programs read.
    """
    if desk.out.form == "json":
        desk.out.json({**summary, "stopped": stopped})
    desk.out.line(told)
    if stopped:
        desk.out.note("Stopped. The same command goes on from here")
    return INTERRUPTED if stopped else DONE


def _of(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,} of {total:,}"


@contextmanager
def progress(desk: Desk, doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """What tells how far a command is: a bar on a terminal, else a line now and then; nothing where programs read."""
    context = click.get_current_context(silent=True)
    if desk.out.form != "table" or getattr(context and context.obj, "quiet", False):
        yield lambda done: None
        return
    bar = _bar(doing, total) if is_terminal(sys.stderr) else None
    if bar is None:
        yield _lines(desk, doing, total)
        return
    with bar:
        task = bar.add_task(doing, total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(desk: Desk, doing: str, total: int | None) -> Callable[[int], None]:
    told = began = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= TOLD_EVERY:
            told = now
            desk.out.note(f"{doing}: {_of(done, total)}, {done / (now - began):,.0f}/s")

    return tell


def _bar(doing: str, total: int | None) -> Any:
    """A bar of rich, if that is installed."""
    with caught(ImportError) as missing:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    if missing.error is not None:
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
