"""``info``: what to put into a bug report."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import sqlalchemy as sa
from celery.exceptions import ImproperlyConfigured

from celery_sql_results.boundaries import caught
from celery_sql_results.cli.desk import Desk, Ending, verb
from celery_sql_results.cli.effective import effective
from celery_sql_results.dialects import connected
from celery_sql_results.foreign import shown
from celery_sql_results.schema import HEAD, State
from celery_sql_results.writing import describe

__all__ = ["command"]

PACKAGES = ("celery-sql-results", "celery", "kombu", "SQLAlchemy", "alembic", "click", "rich")
POOL = ("pool_size", "max_overflow", "pool_timeout", "pool_recycle", "pool_pre_ping", "pool_use_lifo", "poolclass")


@verb("info")
def command(desk: Desk) -> None:
    """Versions, settings that are set, and what is there, without a password: for a bug report.

    A database that is away is told of, and keeps nothing else from being shown.
    """
    logging.getLogger("celery_sql_results").setLevel(logging.ERROR)
    found: dict[str, Any] = {"versions": _versions()}
    found["settings"] = effective(desk.app.conf)
    found["broker"] = {"transport": _transport(desk.app)}
    try:
        backend: Any = desk.backend
    except (Ending, ImproperlyConfigured) as error:
        found["database"] = {"unusable": shown(error.format_message() if isinstance(error, Ending) else error)}
    else:
        found |= _of_backend(desk, backend)
    if desk.out.form == "json":
        desk.out.json(found)
    else:
        _print(desk, found)


def _print(desk: Desk, found: Mapping[str, Any]) -> None:
    for title, fields in found.items():
        desk.out.block(title, "\n".join(f"{name}: {_text(value)}" for name, value in fields.items()) or "none")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(each)}" for name, each in value.items()) or "none"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _transport(app: Any) -> str:
    with caught() as failure:  # a transport of somebody else's may raise anything
        return shown(app.connection_for_write().transport_cls)
    return shown(f"unusable: {type(failure.error).__name__}")


def _of_backend(desk: Desk, backend: Any) -> dict[str, Any]:
    database = backend.database
    engine, impl = database.engine, database.impl
    found: dict[str, Any] = {
        "database": {"url": shown(backend.as_uri()), "driver": f"{engine.driver} {_driver(engine)}"},
        "engine": {"pool": type(engine.pool).__name__}
        | {name: backend.engine_options[name] for name in POOL if name in backend.engine_options},
        "abilities": {
            "notifies": impl.supports_notify and impl.can_listen(engine),
            "tells of changes": impl.counts_changes(engine),
            "counts rows": impl.counts_rows(engine),
            "skips locked rows": impl.supports_skip_locked,
            "knows taken ids": impl.knows_taken_ids,
            "ids in one statement": impl.max_parameters,
            "native chords": backend.settings.native_chords,
        },
    }
    with caught() as failure:
        with connected(engine) as connection:
            found["database"]["server"] = impl.server(connection.dialect)
        found["abilities"]["quick path"] = _is_quick(impl, engine)
        found["tables"] = _tables(desk.state)
    if failure.error is not None:
        found["database"]["away"] = shown(describe(failure.error))
    return found


def _driver(engine: sa.Engine) -> str:
    module: Any = engine.dialect.loaded_dbapi
    for name in (module.__name__.partition(".")[0], engine.driver):
        with caught(PackageNotFoundError):
            return version({"MySQLdb": "mysqlclient", "mysql": "mysql-connector-python"}.get(name, name))
    return shown(getattr(module, "__version__", getattr(module, "sqlite_version", "of Python")))


def _is_quick(impl: Any, engine: sa.Engine) -> bool:
    """Whether the few statements of storing and finding go past SQLAlchemy's connections."""
    return type(impl.connect_quickly(engine)) is not type(impl.connect(engine))


def _tables(state: State) -> dict[str, str]:
    found = {"version": f"{', '.join(sorted(state.versions or ())) or 'none'} (this release: {HEAD})"}
    for table, there in state.tables.items():
        lacking = sorted(set(table.columns.keys()) - there.columns)
        told = [f"{len(there.columns)} columns" if there.columns else "missing"]
        told += [f"lacks {', '.join(lacking)}"] if lacking and there.columns else []
        told += ["lacks its sequence"] if not there.has_sequence else []
        told += [f"denied {', '.join(there.denied)}"] if there.denied else []
        found[table.name] = "; ".join(told)
    return found
