"""The table of those who wait for a task, where the database can notify them."""

from __future__ import annotations

from alembic.operations import Operations

from celery_sql_results.dialects import impl_for
from celery_sql_results.models import Models
from celery_sql_results.schema.migrations import steps_for

revision = "0002"
down_revision = "0001"


def upgrade(op: Operations, models: Models) -> None:
    """Create ``models.waiters``."""
    if not impl_for(op.get_bind().dialect.name).supports_notify:
        return
    for step in steps_for(op.get_bind(), models.waiters):
        op.execute(step)
