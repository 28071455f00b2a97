"""``sql``: the SQL that makes the tables, for people to run."""

from __future__ import annotations

import click

from celery_sql_results.cli.desk import Desk, verb
from celery_sql_results.cli.dialects import dialect_of, models_of
from celery_sql_results.cli.statements import show
from celery_sql_results.schema import script

__all__ = ["command"]


@verb("sql")
@click.argument("dialect", required=False)
def command(desk: Desk, dialect: str | None) -> None:
    """The SQL that makes all tables on an empty database: postgresql, mysql, mariadb or sqlite.

    Without a name, it is for the database of the settings. Nothing is connected, and no driver is needed. The names of
    the tables are those of the settings. For tables that are there already, see upgrade --sql.
    """
    show(desk, script(dialect_of(desk, dialect), models_of(desk)))
