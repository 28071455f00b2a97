"""``upgrade``: make the tables ready, or complete."""

from __future__ import annotations

from collections.abc import Iterator

import click
from sqlalchemy.exc import DBAPIError

from celery_sql_results.cli.changing import agreed, ended, through
from celery_sql_results.cli.desk import DONE, REFUSED, Desk, Ending, verb
from celery_sql_results.cli.statements import show
from celery_sql_results.dialects import connected
from celery_sql_results.foreign import shown
from celery_sql_results.schema import State, index_statements, missing_indexes, pending, remedy, text, upgrade
from celery_sql_results.writing import describe

__all__ = ["command"]


@verb("upgrade", acts=True)
@click.option("--dry-run", "--sql", "is_dry", is_flag=True, help="Show the statements, and run none.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--indexes", is_flag=True, help="Also create indexes that are missing; this takes long on large tables.")
@click.option("--costly", is_flag=True, help="With --indexes: also those that make each store slower.")
def command(desk: Desk, is_dry: bool, yes: bool, indexes: bool, costly: bool) -> int:
    """Create the tables, or add what an older release lacks, as each worker does at its start.

    The statements are shown first. They are instant also on large tables, but for those of --indexes, which let writers
    go on, and which can be stopped with Ctrl-C and begun again. Where this role may not run them, the SQL for somebody
    who may is printed, and the exit code is 2. Tables of a newer release are left as they are.
    """
    state, database = desk.state, desk.backend.database
    of_tables = [] if state.is_done else _statements(desk, state)
    of_indexes = _of_indexes(desk, costly) if indexes else []
    statements = [*of_tables, *of_indexes]
    if not statements:
        return _nothing(desk, state)
    if is_dry or desk.out.form == "table":
        show(desk, statements)
    if is_dry:
        return DONE
    if state.reads_only:
        raise Ending(f"{database.name} only reads now, as a standby does: nothing was done")
    agreed(f"run {len(statements)} statements on {database.name}", yes)
    code = _upgraded(desk, state) if of_tables else DONE
    return _indexed(desk, costly) if indexes and code == DONE else code


def _of_indexes(desk: Desk, costly: bool) -> list[str]:
    """What creates the indexes that are missing of what is there now."""
    database = desk.backend.database
    with connected(database.engine) as connection:
        missing = missing_indexes(connection, database.models)
        return list(index_statements(connection, [each for each in missing if costly or not each.is_costly]))


def _indexed(desk: Desk, costly: bool) -> int:
    statements = _of_indexes(desk, costly)
    try:
        done, is_stopped = through(desk, "creating indexes", len(statements), _each_run(desk, statements))
    except DBAPIError as error:
        desk.out.note(f"this role could not do all of it ({shown(describe(error))}). Let one that may run:")
        show(desk, _of_indexes(desk, costly))
        return REFUSED
    told = f"{done} of {len(statements)} statements on indexes were run"
    return ended(desk, told, is_stopped, done=done, total=len(statements))


def _each_run(desk: Desk, statements: list[str]) -> Iterator[int]:
    for statement in statements:
        with connected(desk.backend.database.engine) as connection:
            connection.exec_driver_sql(statement)
        yield 1


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
