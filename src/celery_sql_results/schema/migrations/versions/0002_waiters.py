"""The table of those who wait for a task, where the database can notify them."""

from __future__ import annotations

from alembic.operations import Operations

from celery_sql_results.dialects import impl_for
from celery_sql_results.models import Models
from celery_sql_results.schema.migrations import steps_for

revision = "0002"
down_revision = "0001"


def upgrade(op: Operations, models: Models) -> None:
    """Create ``models.waiters``. A server that does not know such tables has the others all the same."""
    impl = impl_for(op.get_bind().dialect.name)
    if not impl.supports_notify:
        return
    with impl.unless_refused(op.get_bind()):
        for step in steps_for(op.get_bind(), models.waiters):
            op.execute(step)
