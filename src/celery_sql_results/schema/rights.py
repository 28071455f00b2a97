"""The least rights that a role needs, by what it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from celery_sql_results.dialects import RIGHTS, DefaultImpl
from celery_sql_results.models import Models

from .found import version_table

__all__ = ["PURPOSES", "Needed", "grants", "needed"]

READ = ("SELECT",)


class Needed(NamedTuple):
    """What a role needs of a table: rights, and whether it draws ids from its sequence."""

    rights: tuple[str, ...]
    draws: bool


#: What a role is for, with the rights on results, on groups and on our own tables. Of these, a backend uses those on
#: which it may do everything, and does without the others.
PURPOSES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "worker": (RIGHTS, RIGHTS, RIGHTS),
    "client": (("SELECT", "DELETE"), RIGHTS, RIGHTS),
    "reader": (READ, READ, READ),
    "cleanup": (("DELETE",), ("DELETE",), RIGHTS),
}


def needed(impl: DefaultImpl, models: Models, purpose: str) -> dict[sa.Table, Needed]:
    """What a role needs that is for one of :data:`PURPOSES`."""
    of_tasks, of_groups, of_own = PURPOSES[purpose]
    of_workers = RIGHTS if purpose == "worker" else READ
    known = {models.task: of_tasks, models.group: of_groups, models.workers: of_workers}
    found = {table: known.get(table, of_own) for table in models.tables_for(impl)}
    found[version_table(models)] = READ
    return {table: Needed(_ordered(impl, rights), "INSERT" in rights) for table, rights in found.items()}


def _ordered(impl: DefaultImpl, rights: tuple[str, ...]) -> tuple[str, ...]:
    every = {*rights, *(impl.tending.to_clean if rights == ("DELETE",) else ())}
    return tuple(right for right in RIGHTS if right in every)


def grants(dialect: sa.Dialect, impl: DefaultImpl, models: Models, purpose: str, role: str) -> Iterator[str]:
    """The statements that grant a role what it needs."""
    quoted, grantee = dialect.identifier_preparer, impl.tending.grantee(dialect, role)
    tables = needed(impl, models, purpose)
    if impl.tending.grants_schemas:
        for schema in sorted({table.schema for table in tables if table.schema}):
            yield f"GRANT USAGE ON SCHEMA {quoted.quote(schema)} TO {grantee}"
    for table, (rights, draws) in tables.items():
        yield f"GRANT {', '.join(rights)} ON {quoted.format_table(table)} TO {grantee}"
        sequence = table.c.id.default if "id" in table.c else None
        right = impl.sequence_grant if draws else impl.tending.sequence_seen
        if right and dialect.supports_sequences and isinstance(sequence, sa.Sequence):
            yield f"GRANT {right} {quoted.format_sequence(sequence)} TO {grantee}"
