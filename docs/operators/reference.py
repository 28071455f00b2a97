"""Writes the reference of the commands: what click knows of each, and which keys its JSON has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from inspect import cleandoc
from typing import Any

import click

from celery_sql_results.cli import desk
from celery_sql_results.cli.group import COMMANDS, PREFIX
from celery_sql_results.cli.program import program

from .world import id_of

__all__ = ["reference"]

#: Behind this line, the page is made by the program.
MARK = "<!-- scripts/questions writes what follows. -->\n"
CODES = {
    desk.DONE: "done; a list that is empty, too",
    desk.UNWELL: "what was asked for is not well: `check` found something wrong, or a task that `show` or `wait` "
    "was asked for has failed or was revoked",
    desk.REFUSED: "a wrong call, or a refusal: nothing was done, and one line says why",
    desk.NOT_READY: "`show`: the task is not ready",
    desk.UNKNOWN: "nothing has this id",
    desk.TIMED_OUT: "`wait`: the time was over before the tasks were ready",
    desk.INTERRUPTED: "stopped with Ctrl-C; the same command goes on from there. `tail` ends with 0",
}
#: Calls whose JSON is looked at. What changes something comes last: some of what the others show is gone then.
CALLS = (
    *("list --limit 1", f"show {id_of('pay')}", "failures", f"tree {id_of('pay')}", "stats", "stats --sizes"),
    *("chords", "chords --stuck", f"chords {id_of('chord')}", "workers", "workers --lost", "tail --since 1h --limit 1"),
    *(
        "spool",
        "spool --list",
        "spool --replay --yes",
        f"wait {id_of('order')}",
        "check",
        "upgrade",
        "sql sqlite",
        "info",
    ),
    *("grants clerk --dialect postgresql", f"forget {id_of('order')} --dry-run", f"retry {id_of('pay')} --dry-run"),
    *("cleanup --dry-run", f"chords {id_of('chord')} --kick --fail --dry-run"),
    *(f"retry {id_of('pay')} --yes", f"chords {id_of('chord')} --kick --fail --yes"),
    *(f"forget {id_of('order')} --yes", "cleanup --yes"),
)
#: The last of the options that many commands share, and are described once.
OF_ALL, OF_FILTERS = ("--json", "--csv", "--utc", "--time-limit", "--verbose"), "--exception"
ID = re.compile(r"[0-9a-f-]{36}")


def reference(page: str, run: Callable[[str], str]) -> str:
    """The page anew: what stands above the mark is kept.

    Args:
        page: as it is.
        run: gives what a command prints.
    """
    shapes = _shapes(run)
    return f"{page.partition(MARK)[0]}{MARK}\n" + "\n".join(_parts(shapes))


def _parts(shapes: dict[str, list[str]]) -> Iterator[str]:
    context = click.Context(program)
    commands = {name: program.get_command(context, name) for names in COMMANDS.values() for name in names}
    filters = [each for each in _options(commands["list"]) if each.opts[0] not in (*OF_ALL, "--limit")]
    yield "## Exit codes\n\n" + _table(("code", "means"), ((str(code), told) for code, told in CODES.items()))
    yield "## Options of the program\n\n`celery-sql-results` takes them before the command.\n"
    yield _of_options(_options(program), lambda each: f"{PREFIX}_{str(each.name).upper()}")
    yield "## Options of all commands\n\n`--csv` is for lists.\n"
    common = [each for each in _options(commands["list"]) if each.opts[0] in OF_ALL]
    yield _of_options(common, lambda each: _variable(each, "…"))
    have = [name for name, command in commands.items() if _has_filters(command)]
    yield "## Filters\n\n" + f"Of {', '.join(f'`{name}`' for name in have)}. Results must meet all that are given.\n"
    yield _of_options(filters, lambda each: _variable(each, "…"))
    for title, names in COMMANDS.items():
        yield f"## {title}\n"
        for name in names:
            yield from _command(name, commands[name], filters, shapes)


def _command(name: str, command: Any, filters: Iterable[click.Option], shapes: dict[str, list[str]]) -> Iterator[str]:
    arguments = [_argument(each) for each in command.params if isinstance(each, click.Argument)]
    yield f"### {name}\n\n```text\n{' '.join([name, '[OPTIONS]', *arguments])}\n```\n"
    yield f"{cleandoc(command.help).strip()}\n".replace("*", "\\*")
    known = {*OF_ALL, *(each.opts[0] for each in filters if _has_filters(command))}
    own = [each for each in _options(command) if each.opts[0] not in known]
    if own:
        yield _of_options(own, _variable)
    if _has_filters(command):
        yield "It also takes the [filters](#filters).\n"
    yield "With `--json`:\n"
    yield "".join(f"- `{call}`: {'; '.join(found)}\n" for call, found in shapes.items() if call.split()[0] == name)


def _argument(argument: click.Argument) -> str:
    name = str(argument.name).upper()
    return argument.metavar or (name if argument.required else f"[{name}]")


def _options(command: Any) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option) and each.opts[0] != "--version"]


def _has_filters(command: Any) -> bool:
    return any(each.opts[0] == OF_FILTERS for each in _options(command))


def _variable(option: click.Option, instead: str = "") -> str:
    found = str(option.envvar)
    return f"{PREFIX}_{instead}_{option.opts[0].strip('-').replace('-', '_').upper()}" if instead else found


def _of_options(options: Iterable[click.Option], variable: Callable[[click.Option], str]) -> str:
    rows = ((f"`{_written(each)}`", _told(each), f"`{variable(each)}`") for each in options)
    return _table(("option", "what it says", "variable"), rows)


def _written(option: click.Option) -> str:
    names = ", ".join(option.opts) + "".join(f" / {each}" for each in option.secondary_opts)
    if option.is_flag:
        return names
    return f"{names} {option.metavar or '…'}"


def _told(option: click.Option) -> str:
    default = option.default if isinstance(option.default, (str, int, float)) and not option.is_flag else None
    choices = ", ".join(getattr(option.type, "choices", ()))
    told = str(option.help) + (choices and f" One of: {choices}.")
    told += "" if default is None else f" Default: {default}."
    return told.replace("*", "\\*").replace("|", "\\|")


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [titles, ("---" for _ in titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shapes(run: Callable[[str], str]) -> dict[str, list[str]]:
    """The keys of the lines of each call; one text for each kind of line."""
    found: dict[str, list[str]] = {}
    for call in CALLS:
        lines = run(f"celery -A shop results {call} --json").splitlines()
        values = [json.loads(line) for line in lines if line[0] in '{"']  # beside what is said on the side
        kinds = dict.fromkeys(map(_keys, values))
        found[ID.sub("ID", call)] = [*kinds]
    return found


def _keys(value: Any) -> str:
    return ", ".join(f"`{key}`" for key in value) if isinstance(value, dict) else "a text: a statement"
