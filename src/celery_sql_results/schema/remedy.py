"""What an operator is told: what is not there, what is not allowed, and the SQL that mends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from celery_sql_results.dialects import RIGHTS, impl_for, sequence_of

from .found import State
from .migrate import stamp, steps

__all__ = ["remedy", "shortcomings", "strangers"]


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
    lines = [[*_ddl(connection, state, table)] for table in state.tables]
    lines.append([_compiled(connection, step) for step in _stamp(connection, state)])
    lines.append([grant for table in state.tables for grant in _grants(connection, state, table)])
    return "\n".join(" ".join(f"{statement};" for statement in line) for line in lines if line)


def _ddl(connection: Connection, state: State, table: sa.Table) -> Iterator[str]:
    if not state.is_done and (table in state.missing or not state.is_ahead):
        yield from (_compiled(connection, step) for step in steps(connection, table))


def _stamp(connection: Connection, state: State) -> Iterator[sa.Executable]:
    if not (state.is_done or state.is_ahead):
        yield from stamp(connection, state)


def _compiled(connection: Connection, step: sa.Executable) -> str:
    compiled: Any = step.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})  # type: ignore[attr-defined]
    return re.sub(r"\s*\n\s*", " ", str(compiled).strip())


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
