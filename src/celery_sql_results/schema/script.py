"""The whole schema as SQL, for people to run: nothing is connected, and no driver is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateSchema, CreateSequence, CreateTable

from celery_sql_results.dialects import impl_for
from celery_sql_results.models import Models

from .found import HEAD, version_table
from .quiet import quiet

__all__ = ["on_one_line", "script", "text"]


def text(dialect: sa.Dialect, step: sa.Executable) -> str:
    """A statement as people read it, without a semicolon."""
    compiled: Any = step.compile(dialect=dialect, compile_kwargs={"literal_binds": True})  # type: ignore[attr-defined]
    lines = (line.rstrip().replace("\t", "    ") for line in str(compiled).splitlines())
    return "\n".join(filter(None, lines))


def on_one_line(dialect: sa.Dialect, step: sa.Executable) -> str:
    """A statement as a log takes it."""
    return re.sub(r"\s*\n\s*", " ", text(dialect, step))


def script(dialect: sa.Dialect, models: Models) -> Iterator[str]:
    """The statements that make everything on an empty database, in their order, each without a semicolon.

    Args:
        dialect: one of :func:`~celery_sql_results.dialects.unconnected`, or of an engine that was connected.
    """
    for step in _steps(dialect, models):
        yield text(dialect, step)


def _steps(dialect: sa.Dialect, models: Models) -> Iterator[sa.Executable]:
    with quiet():
        from .migrations import creation
    impl = impl_for(dialect.name)
    tables = models.tables_for(impl)
    if impl.tending.creates_schemas:
        for schema in sorted({table.schema for table in tables if table.schema}):
            yield CreateSchema(schema, if_not_exists=True)
    for table in tables:
        default = table.c.id.default if "id" in table.c else None
        if dialect.supports_sequences and isinstance(default, sa.Sequence):
            yield CreateSequence(sa.Sequence(default.name, schema=default.schema, start=1))
        yield from creation(table)
    version = version_table(models)
    yield CreateTable(version)
    yield version.insert().values(version_num=HEAD)
