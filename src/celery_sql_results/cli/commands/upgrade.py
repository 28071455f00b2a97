"""``upgrade``: make the tables ready, or complete."""

from __future__ import annotations

import click

from celery_sql_results.cli.changing import agreed
from celery_sql_results.cli.desk import DONE, REFUSED, Desk, Ending, verb
from celery_sql_results.cli.statements import show
from celery_sql_results.dialects import connected
from celery_sql_results.foreign import shown
from celery_sql_results.schema import State, pending, remedy, text, upgrade
from celery_sql_results.writing import describe

__all__ = ["command"]


@verb("upgrade")
@click.option("--dry-run", "--sql", "is_dry", is_flag=True, help="Show the statements, and run none.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
def command(desk: Desk, is_dry: bool, yes: bool) -> int:
    """Create the tables, or add what an older release lacks, as each worker does at its start.

    The statements are shown first. They are instant also on large tables. Where this role may not run them, the SQL for
    somebody who may is printed, and the exit code is 2. Tables of a newer release are left as they are.
    """
    state = desk.state
    if state.is_done:
        return _nothing(desk, state)
    statements = _statements(desk, state)
    if is_dry:
        show(desk, statements)
        return DONE
    if state.reads_only:
        raise Ending(f"{desk.backend.database.name} only reads now, as a standby does: nothing was done")
    if desk.out.form == "table":
        show(desk, statements)
    agreed(f"run {len(statements)} statements on {desk.backend.database.name}", yes)
    return _upgraded(desk, state)


def _nothing(desk: Desk, state: State) -> int:
    version = _version(state)
    told = f"a newer release has set the tables up (version {version}): they are left as they are"
    desk.out.line(told if state.is_ahead else f"nothing to do: the tables are at version {version}")
    if desk.out.form == "json":
        desk.out.json({"before": version, "after": version, "is_ahead": state.is_ahead})
    return DONE


def _statements(desk: Desk, state: State) -> list[str]:
    with connected(desk.backend.database.engine) as connection:
        return [text(connection.dialect, step) for step in pending(connection, state)]


def _upgraded(desk: Desk, before: State) -> int:
    engine = desk.backend.database.engine
    after, refused = upgrade(engine, before.models)
    if not after.is_done:
        with connected(engine) as connection:
            sql = remedy(connection, after)
        why = f" ({shown(describe(refused))})" if refused else ""
        desk.out.note(f"this role could not do all of it{why}. Let one that may create and alter tables run:")
        click.echo(sql)
        return REFUSED
    if desk.out.form == "json":
        desk.out.json({"before": _version(before), "after": _version(after), "is_ahead": after.is_ahead})
    desk.out.line(f"the tables are at version {_version(after)} (before: {_version(before) or 'none'})")
    return DONE


def _version(state: State) -> str:
    return ", ".join(sorted(state.versions or ()))
