"""The tables of task and group results, new or made complete from what an older Celery left."""

from __future__ import annotations

from alembic.operations import Operations

from celery_sql_results.models import Models
from celery_sql_results.schema.migrations import steps_for

revision = "0001"
down_revision = None


def upgrade(op: Operations, models: Models) -> None:
    """Create ``models.task`` and ``models.group``, or add the columns that they lack."""
    for table in (models.task, models.group):
        for step in steps_for(op.get_bind(), table):
            op.execute(step)
