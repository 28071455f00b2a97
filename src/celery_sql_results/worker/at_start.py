"""What a worker says in one line as it starts: what it has found, and what is not as it should be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from celery_sql_results.boundaries import caught
from celery_sql_results.dialects import connected
from celery_sql_results.dialects.types import utc_now
from celery_sql_results.foreign import escaping
from celery_sql_results.rows import Database
from celery_sql_results.schema import State, look, shortcomings
from celery_sql_results.writing import Spool, describe

__all__ = ["AtStart"]

logger = escaping(logging.getLogger(__name__))

#: What part of all ids may be used, and how soon they may run out, before somebody is told.
HALF, SOON = 0.5, timedelta(days=365)
#: How old the oldest row must be, before a rate can be told from it.
LONG_ENOUGH = timedelta(hours=1)


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
            wrong = [*_missing(state), *self._ids(connection, state)]
        notified, unheard = self._notifications()
        wrong += [*unheard, *self._spools()]
        versions = ", ".join(sorted(state.versions or ())) or "that cannot be read"
        tables = f"{database.models.task.name} and {database.models.group.name}"
        chords = "" if rows.chords else ", chords are Celery's own"
        found = f"{server}, tables {tables} at schema version {versions}, {notified}{chords}"
        if wrong:
            listed = "; ".join(["%s"] * len(wrong))  # a value that is too long is cut off
            logger.warning(f"results go to %s: %s. Not as it should be: {listed}", self._name, found, *wrong)  # noqa: G004 - only %s
        else:
            logger.info("results go to %s: %s", self._name, found)

    def _notifications(self) -> tuple[str, list[str]]:
        heard = None
        with caught() as failure:  # a driver may raise anything
            heard = self._hears()
        polled, remedy = "results are polled", "let database_listen_url lead to the server itself, or set "
        if failure.error is not None:
            return polled, [
                f"no connection for notifications ({describe(failure.error)}): {remedy}database_listen = False"
            ]
        if heard is False:
            return polled, [f"notifications do not arrive: {remedy}database_listen = False"]
        return ("results are notified" if heard else polled), []

    def _ids(self, connection: Connection, state: State) -> Iterator[str]:
        for table in (state.models.task, state.models.group):
            largest = self._database.impl.tending.largest_id(connection, table) if state.tables[table].columns else None
            if largest is not None and not state.tables[table].denied:
                yield from _used(connection, table, largest)

    def _spools(self) -> Iterator[str]:
        if self._spool is None:
            return
        directory = self._spool.directory
        waiting = len(directory.names())
        if waiting:
            yield f"{waiting} results wait in the spool {directory.path}, and are stored now"
        for sibling in directory.siblings():
            yield (
                f"{sibling.entries} results wait in {sibling.path} for {sibling.owner} since "
                f"{sibling.since:%Y-%m-%d %H:%M} UTC, and nobody stores them: start a worker with that result_backend, "
                "or move the files to the spool of one"
            )


def _missing(state: State) -> Iterator[str]:
    found = shortcomings(state)
    if found:
        more = f", and {len(found) - 1} things more" if found[1:] else ""
        yield f"{found[0]}{more}: a warning before this one holds the SQL to run"


def _used(connection: Connection, table: sa.Table, largest: int) -> Iterator[str]:
    highest = sa.select(sa.func.max(table.c.id)).scalar_subquery()
    query = sa.select(highest, table.c.id, table.c.date_done).where(table.c.date_done.is_not(None))
    row = connection.execute(query.order_by(table.c.date_done).limit(1)).first()
    if row is None or row[0] is None:
        return
    used, first, age = row[0], row[1], utc_now() - row[2].replace(tzinfo=None)
    left = age * ((largest - used) / max(used - first, 1)) if age > LONG_ENOUGH and used > first else timedelta.max
    if used > HALF * largest or left < SOON:
        when = f", and at this rate the last is used in {left.days} days" if left < SOON else ""
        yield (
            f"{100 * used // largest} % of the ids of {table.name} are used (up to {largest}){when}: let its column id "
            "be BIGINT, and its sequence, if it has one"
        )
