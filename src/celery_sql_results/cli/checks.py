"""All that ``check`` looks at, in the order in which it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from celery.exceptions import ImproperlyConfigured
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results import health
from celery_sql_results.boundaries import caught
from celery_sql_results.dialects import connected
from celery_sql_results.foreign import shown
from celery_sql_results.health import Finding, Level
from celery_sql_results.schema import State
from celery_sql_results.writing import describe

from .desk import Desk

__all__ = ["Checks"]

SPOOL = "database_spool_dir"
#: A look by way of a connection that only reads.
Look = Callable[[Connection], Finding | Iterable[Finding] | None]


class Checks:
    """The checks of one database.

    Args:
        desk: leads to the app.
        purpose: what this role is for.
    """

    def __init__(self, desk: Desk, purpose: str) -> None:
        self._desk, self._purpose = desk, purpose

    def all(self) -> Iterator[Finding]:
        """Look at everything that can be looked at."""
        settings = list(self._settings())
        yield from settings
        if any(finding.level is Level.WRONG and finding.about == "settings" for finding in settings):
            return
        with caught() as failure:
            yield from self._of_server(self._desk.state)
        if failure.error is not None:
            yield self._unreached(failure.error)
        yield from self._safely("spool", self._spools)

    def _settings(self) -> Iterator[Finding]:
        """Whether a backend can be made. Where its spool alone is in the way, one without is looked at."""
        error = self._wrong_setting()
        if error is not None and str(error).startswith(SPOOL):
            yield Finding("spool", str(error), Level.WRONG)
            self._desk.app.conf.database_spool_dir = None
            error = self._wrong_setting()
        if error is not None:
            yield Finding("settings", str(error), Level.WRONG)
            return
        unknown = self._desk.backend.settings.unknown
        for name in unknown:
            found = f"{name.partition(':')[0]} is no setting of celery-sql-results"
            yield Finding("settings", found, Level.WRONG, to_do=name.partition(": ")[2] or "remove it, or look it up")
        if not unknown:
            yield Finding("settings", "those that are set are known")

    def _wrong_setting(self) -> ImproperlyConfigured | None:
        try:
            _ = self._desk.backend
        except ImproperlyConfigured as error:
            return error
        return None

    def _of_server(self, state: State) -> Iterator[Finding]:
        backend = self._desk.backend
        impl, options = backend.database.impl, backend.engine_options
        with connected(backend.database.engine) as connection:
            server = health.server(connection, impl)
        yield server
        yield health.version(state)
        yield from health.tables(state)
        yield from health.rights(state, impl, self._purpose)
        yield from health.strange(state)
        looks: dict[str, Look] = {
            "columns": lambda connection: health.columns(connection, impl, state),
            "indexes": lambda connection: health.indexes(connection, state),
            "ids": lambda connection: health.ids(connection, impl, state),
            "bloat": lambda connection: health.bloat(connection, impl, state),
            "expiry": lambda connection: self._expired(connection, state),
            "clock": lambda connection: health.clock(connection, impl),
            "connections": lambda connection: health.connections(connection, impl, options),
            "isolation": lambda connection: health.isolation(connection, impl),
        }
        for about, look in looks.items():
            yield from self._safely(about, partial(self._looked, look))
        yield self._notifications(state)

    def _looked(self, look: Look) -> list[Finding]:
        """What a look finds, within the time limit."""
        database, seconds = self._desk.backend.database, self._desk.seconds
        with database.impl.reads.connect(database.engine, seconds) as connection:
            found = look(connection)
            return [] if found is None else [found] if isinstance(found, Finding) else list(found)

    def _safely(self, about: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        """What is found. What fails keeps nothing else from being looked at."""
        found: list[Finding] = []
        with caught() as failure:
            found = list(look())
        if failure.error is not None:
            told = describe(failure.error) if isinstance(failure.error, SQLAlchemyError) else failure.error
            yield Finding(about, f"could not be looked at ({shown(told)})", Level.ADVICE)
            return
        yield from found

    def _unreached(self, error: BaseException) -> Finding:
        name = self._desk.backend.database.name
        found = f"{name} cannot be used ({shown(describe(error))})"
        return Finding("server", found, Level.WRONG, to_do="bring it back, or correct result_backend")

    def _notifications(self, state: State) -> Finding:
        """Whether they arrive: nothing is created by looking, so the tables must be there."""
        backend, models = self._desk.backend, state.models
        settings, impl = backend.settings, backend.database.impl
        if not impl.supports_notify:
            return Finding("notifications", "results are polled: this database sends no notifications")
        if not settings.listen:
            return Finding("notifications", "results are polled: database_listen is False")
        if not state.is_done or state.reads_only or not state.may_use(models.waiters):
            told = f"results are polled: {models.waiters.name} is not there, or may not be used"
            return Finding("notifications", told, Level.ADVICE)
        at_start: Any = backend.upkeep.at_start
        found: Finding = at_start.notifications()
        if found.found == health.POLLED:
            return found._replace(found=f"results are polled: {backend.database.engine.driver} cannot listen")
        return found

    def _expired(self, connection: Connection, state: State) -> Finding | None:
        conf, expires = self._desk.app.conf, self._desk.backend.settings.expires
        return health.expired(connection, state, expires, bool(conf.value_set_for("result_expires")))

    def _spools(self) -> Iterable[Finding]:
        spool: Any = self._desk.backend.spool
        return [] if spool is None else health.spools(spool)
