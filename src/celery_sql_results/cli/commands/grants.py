"""``grants``: the least rights of a role, as SQL."""

from __future__ import annotations

import click
import sqlalchemy as sa
from celery.exceptions import ImproperlyConfigured
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results.boundaries import caught
from celery_sql_results.cli.desk import Desk, Ending, verb
from celery_sql_results.cli.dialects import dialect_of, models_of
from celery_sql_results.cli.statements import show
from celery_sql_results.dialects import connected, impl_for
from celery_sql_results.schema import PURPOSES, grants

__all__ = ["command"]


@verb("grants")
@click.argument("role")
@click.option("--for", "purpose", type=click.Choice([*PURPOSES]), default="worker", show_default=True, help="Its job.")
@click.option("--dialect", metavar="NAME", help="For another database than that of the settings: mariadb.")
def command(desk: Desk, role: str, purpose: str, dialect: str | None) -> None:
    """The least rights that a ROLE needs, as SQL for somebody who may grant them. On MySQL, write user@host.

    A worker runs tasks and does all that belongs to them. A client sends tasks, waits for results, and forgets them. A
    reader looks: list, show, stats, check. Cleanup deletes what has expired.
    """
    found = dialect_of(desk, dialect) if dialect else _connected(desk) or dialect_of(desk, None)
    impl = impl_for(found.name)
    if impl.tending.without_roles:
        raise Ending(impl.tending.without_roles)
    show(desk, grants(found, impl, models_of(desk), purpose, role))


def _connected(desk: Desk) -> sa.Dialect | None:
    """The dialect as the server is, if it can be reached: the URL alone does not tell MySQL from MariaDB."""
    with caught() as failure, connected(desk.backend.database.engine) as connection:
        return connection.dialect
    if not isinstance(failure.error, (Ending, ImproperlyConfigured, SQLAlchemyError)):
        raise failure.error  # type: ignore[misc]
    return None
