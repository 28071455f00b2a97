"""Which database SQL is written for: the one that somebody names, or that of the settings."""

from __future__ import annotations

import sqlalchemy as sa
from celery.exceptions import ImproperlyConfigured
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from celery_sql_results.aliases import is_alias, place_of
from celery_sql_results.dialects import known_databases, unconnected
from celery_sql_results.foreign import shown
from celery_sql_results.models import Models, models_for
from celery_sql_results.settings import table_names

from .desk import ADDRESS, Desk, Ending

__all__ = ["dialect_of", "models_of"]


def dialect_of(desk: Desk, name: str | None) -> sa.Dialect:
    """The dialect of a name, or of the URL; nothing is connected, and no driver loaded.

    Raises:
        Ending: there is none.
    """
    try:
        return unconnected(name or _of_url(desk))
    except (NoSuchModuleError, ArgumentError):
        raise Ending(f"{shown(name)!r} is no database that SQLAlchemy knows: {', '.join(known_databases())}") from None


def _of_url(desk: Desk) -> str:
    url = str(desk.app.conf.result_backend or "")
    if is_alias(url):
        url = f"sql+{place_of('result_backend', url, loads_driver=False).url}"
    scheme, found, _ = url.partition("://")
    if not (found and scheme.startswith(("sql+", "db+"))):
        raise Ending(f"for which database? Name it ({', '.join(known_databases())}), or {ADDRESS}")
    name = scheme.removeprefix("sql+").removeprefix("db+").partition("+")[0]
    if name == "mysql":
        desk.out.note("this is for MySQL: for MariaDB, name that")
    return name


def models_of(desk: Desk) -> Models:
    """The tables of the app; those that the settings name, where its backend cannot be made: its driver is missing."""
    try:
        return desk.backend.models
    except (Ending, ImproperlyConfigured):
        return models_for(table_names(desk.app.conf))
