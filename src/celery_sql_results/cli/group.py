"""The names of the commands. Each is at home in a module of :mod:`.commands`, imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem
from click_didyoumean import DYMGroup  # type: ignore[import-untyped]

__all__ = ["COMMANDS", "PREFIX", "results"]

#: What the names of environment variables begin with, here and below ``celery results``.
PREFIX = "CELERY_RESULTS"

#: What each command does, in the order and in the sections of the help.
COMMANDS = {
    "Look": {
        "list": "Results, newest first.",
        "show": "All that is known of a result.",
        "failures": "What failed, grouped by exception and task.",
        "tree": "The workflow that a task belongs to.",
        "stats": "How many results, how long they took.",
        "chords": "Chords whose body was not sent, and what they wait for.",
        "workers": "Which workers are alive.",
        "tail": "New results as they come.",
        "wait": "Wait until tasks are ready.",
    },
    "Do": {
        "forget": "Delete results.",
        "retry": "Send tasks again, with what they were called with.",
        "spool": "What waits on this host until the database takes it.",
        "cleanup": "Delete what has expired.",
    },
    "Set up": {
        "check": "Is this database as it should be?",
        "upgrade": "Make the tables ready, or complete.",
        "sql": "The SQL that makes the tables, for people to run.",
        "grants": "The least rights of a worker, a client, a reader.",
        "info": "What to put into a bug report.",
    },
}


class LazyGroup(DYMGroup):  # type: ignore[misc] # it has no types
    """A group whose help knows what each command does without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, as the help lists them."""
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name, if there is one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f".commands.{cmd_name}", __package__)
        return module.command  # type: ignore[no-any-return]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a shell completes: nothing is imported to know the commands."""
        known = {name: told for section in COMMANDS.values() for name, told in section.items()}
        found = [CompletionItem(name, help=told) for name, told in known.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help of the commands, section by section."""
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))


@click.group(cls=LazyGroup, name="results")
def results(**_: Any) -> None:
    """See and tend the results of tasks in the SQL database of the backend.

    Exit codes: 0 done; 1 what was asked for is not well (a task failed, or check found something); 2 a wrong call, or
    a refusal; 3 not ready; 4 unknown; 124 timed out; 130 stopped with Ctrl-C.
    """
