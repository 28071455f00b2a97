"""What an operator is told: what is not there, what is not allowed, and the SQL that mends it."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from celery_sql_results.dialects import RIGHTS, impl_for, sequence_of

from .found import State
from .migrate import stamp, steps
from .script import on_one_line

__all__ = ["pending", "remedy", "shortcomings", "strangers"]


def shortcomings(state: State) -> list[str]:
    """What is missing or not allowed. Columns that a newer release has dropped are not missing."""
    return [text for table in state.tables for text in _of(state, table)]


def _of(state: State, table: sa.Table) -> Iterator[str]:
    found = state.tables[table]
    if not found.columns:
        yield f"{table.name} is missing"
        return
    lacking = [column.name for column in table.columns if column.name not in found.columns]
    if lacking and not state.is_ahead:
        yield f"{table.name} lacks {', '.join(lacking)}"
    if not found.has_sequence:
        yield f"{table.name} lacks its sequence"
    if found.denied:
        yield f"this role may not {', '.join(found.denied)} on {table.name}"
    if not found.may_draw:
        yield f"this role may not use the sequence of {table.name}"


def strangers(state: State) -> list[str]:
    """Who else decides what runs when a table is used, and of which."""
    found = {**state.tables, state.version_table: state.version}
    return [f"{table.name} {theirs}" for table in found for theirs in found[table].strangers]


def remedy(connection: Connection, state: State) -> str:
    """The statements for a role that may create tables and grant rights, each ended by a semicolon.

    One line for each table that is made or changed, and one for all rights, so that they do not fill a log.
    """
    lines = [[on_one_line(connection.dialect, step) for step in each] for each in _pending(connection, state)]
    lines.append([grant for table in state.tables for grant in _grants(connection, state, table)])
    return "\n".join(" ".join(f"{statement};" for statement in line) for line in lines if line)


def pending(connection: Connection, state: State) -> list[sa.Executable]:
    """The statements that an upgrade would run."""
    return [step for each in _pending(connection, state) for step in each]


def _pending(connection: Connection, state: State) -> Iterator[Iterator[sa.Executable]]:
    """The statements for each table, then those that note the version."""
    if state.is_done:
        return
    for table in state.tables:
        if table in state.missing or not state.is_ahead:
            yield steps(connection, table)
    if not state.is_ahead:
        yield stamp(connection, state)


def _grants(connection: Connection, state: State, table: sa.Table) -> Iterator[str]:
    impl = impl_for(connection.dialect.name)
    grantee, quoted = impl.grantee(connection), connection.dialect.identifier_preparer
    if grantee is None:
        return
    found = state.tables[table]
    rights = found.denied if found.columns else RIGHTS
    if rights:
        yield f"GRANT {', '.join(rights)} ON {quoted.format_table(table)} TO {grantee}"
    sequence = sequence_of(connection, table)
    if sequence is not None and not (found.columns and found.has_sequence and found.may_draw):
        yield f"GRANT {impl.sequence_grant} {quoted.format_sequence(sequence)} TO {grantee}"
