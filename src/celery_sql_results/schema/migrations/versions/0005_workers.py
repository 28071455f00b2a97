"""The table of the workers that are alive, or were."""

from __future__ import annotations

from alembic.operations import Operations

from celery_sql_results.models import Models
from celery_sql_results.schema.migrations import steps_for

revision = "0005"
down_revision = "0004"


def upgrade(op: Operations, models: Models) -> None:
    """Create ``models.workers``."""
    for step in steps_for(op.get_bind(), models.workers):
        op.execute(step)
