"""What an operator is told: what is not there, what is not allowed, and the SQL that mends it."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from celery_sql_results.dialects import RIGHTS, impl_for, sequence_of

from .found import State
from .migrate import stamp
from .quiet import quiet

__all__ = ["remedy", "shortcomings"]


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


def remedy(connection: Connection, state: State) -> str:
    """The statements for a role that may create tables and grant rights, each ended by a semicolon."""
    return ";\n".join([*_ddl(connection, state), *_grants(connection, state)]) + ";"


def _ddl(connection: Connection, state: State) -> Iterator[str]:
    with quiet():
        from .migrations import steps_for

    if state.is_done:
        return
    tables = state.missing if state.is_ahead else [*state.tables]
    steps: list[sa.Executable] = [step for table in tables for step in steps_for(connection, table)]
    if not state.is_ahead:
        steps += stamp(connection, state)
    for step in steps:
        yield str(step.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})).strip()  # type: ignore[attr-defined]


def _grants(connection: Connection, state: State) -> Iterator[str]:
    impl = impl_for(connection.dialect.name)
    grantee, quoted = impl.grantee(connection), connection.dialect.identifier_preparer
    if grantee is None:
        return
    for table, found in state.tables.items():
        rights = found.denied if found.columns else RIGHTS
        if rights:
            yield f"GRANT {', '.join(rights)} ON {quoted.format_table(table)} TO {grantee}"
        sequence = sequence_of(connection, table)
        if sequence is not None and not (found.columns and found.has_sequence and found.may_draw):
            yield f"GRANT {impl.sequence_grant} {quoted.format_sequence(sequence)} TO {grantee}"
