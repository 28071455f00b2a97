"""What ends a chord whose parts were stored by somebody else: the ids of its header, and the least of its body."""

from __future__ import annotations

from alembic.operations import Operations

from celery_sql_results.models import Models
from celery_sql_results.schema.migrations import steps_for

revision = "0004"
down_revision = "0003"


def upgrade(op: Operations, models: Models) -> None:
    """Add ``members`` and ``bare_body`` to ``models.chords``."""
    for step in steps_for(op.get_bind(), models.chords):
        op.execute(step)
