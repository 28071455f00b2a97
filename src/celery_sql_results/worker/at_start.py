"""What a worker says in one line as it starts: what it has found, and what is not as it should be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from celery_sql_results.dialects import connected
from celery_sql_results.foreign import escaping
from celery_sql_results.health import POLLED, Finding, Level, ids, notifications, spools
from celery_sql_results.rows import Database
from celery_sql_results.schema import State, look, shortcomings
from celery_sql_results.writing import Spool

__all__ = ["AtStart"]

logger = escaping(logging.getLogger(__name__))


class AtStart:
    """Looks at what a worker has for its results.

    Args:
        name: the database, as it may be shown.
        database: the database.
        spool: where results wait if they must, if anywhere.
        hears: whether notifications arrive, or ``None`` where none are sent; or raises.
    """

    def __init__(self, name: str, database: Database, spool: Spool | None, hears: Callable[[], bool | None]) -> None:
        self._name, self._database, self._spool, self._hears = name, database, spool, hears

    def __call__(self) -> None:
        """Say it: as a warning, if anything is not as it should be.

        Raises:
            SchemaError: the tables are not there.
            sqlalchemy.exc.DBAPIError: the database could not be reached.
        """
        database, rows = self._database, self._database.rows
        with connected(database.engine) as connection:
            state = look(connection, database.models)
            server = database.impl.server(connection.dialect)
            wrong = [*_missing(state), *_told(ids(connection, database.impl, state))]
        notified = self.notifications()
        wrong += [*_told([notified]), *self._spools()]
        versions = ", ".join(sorted(state.versions or ())) or "that cannot be read"
        tables = f"{database.models.task.name} and {database.models.group.name}"
        chords = "" if rows.chords else ", chords are Celery's own"
        way = notified.found if notified.level is Level.OK else POLLED
        found = f"{server}, tables {tables} at schema version {versions}, {way}{chords}"
        if wrong:
            listed = "; ".join(["%s"] * len(wrong))  # a value that is too long is cut off
            logger.warning(f"results go to %s: %s. Not as it should be: {listed}", self._name, found, *wrong)  # noqa: G004 - only %s
        else:
            logger.info("results go to %s: %s", self._name, found)

    def notifications(self) -> Finding:
        """Whether they arrive."""
        return notifications(self._hears)

    def _spools(self) -> Iterator[str]:
        if self._spool is None:
            return
        for finding in spools(self._spool.directory):
            if finding.level is Level.ADVICE:
                yield f"{finding.found}, and are stored now"
            elif finding.level is Level.WRONG:
                yield str(finding)


def _told(findings: Iterator[Finding] | list[Finding]) -> list[str]:
    return [str(finding) for finding in findings if finding.level is not Level.OK]


def _missing(state: State) -> Iterator[str]:
    found = shortcomings(state)
    if found:
        more = f", and {len(found) - 1} things more" if found[1:] else ""
        yield f"{found[0]}{more}: a warning before this one holds the SQL to run"
