"""The tables of chords and their parts."""

from __future__ import annotations

from alembic.operations import Operations

from celery_sql_results.models import Models
from celery_sql_results.schema.migrations import steps_for

revision = "0003"
down_revision = "0002"


def upgrade(op: Operations, models: Models) -> None:
    """Create ``models.chords`` and ``models.parts``."""
    for table in (models.chords, models.parts):
        for step in steps_for(op.get_bind(), table):
            op.execute(step)
