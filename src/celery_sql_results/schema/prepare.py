"""The tables are made ready once for each engine: one cheap look, else lock, look again, migrate, stamp.

Any number of processes may meet on an empty database, of any number of apps and table names. Each looks; where anything
is not there, each takes the one lock of the database and looks again, so one migrates and the others find the work
done. Nobody fails. Where a newer release was here, its tables are used as they are.

A server that only reads, such as a standby, is asked for nothing but rows, and looked at again: it may be promoted.

Where this role may not change tables, or not use them, the backend does without what it may not have, and one warning
holds the SQL to run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from celery_sql_results.dialects import DefaultImpl, connected, impl_for
from celery_sql_results.errors import SchemaError, bare
from celery_sql_results.foreign import named, shown
from celery_sql_results.models import Models

from .found import HEAD, State, look
from .migrate import create_missing, migrate
from .remedy import remedy, shortcomings, strangers

__all__ = ["Columns", "Prepared", "prepare_models", "upgrade", "upgrade_within"]

logger = logging.getLogger(__name__)

#: The columns that may be used of each table; none stands for a table that is not there, or may not be used. Those of
#: waiters and workers are left out while the server only reads: whoever reads must not write for that.
Columns = Mapping[sa.Table, frozenset[str]]


class Prepared(NamedTuple):
    """What may be used.

    Attributes:
        columns: of each table.
        reads_only: whether the server takes no writes just now. It may be promoted: it is looked at again.
    """

    columns: Columns
    reads_only: bool = False


#: What is wrong where there is nothing to read, and nothing can be created.
NO_TABLES = (
    "this server only reads, as a standby does, and has no result tables yet: an app on the primary creates them"
)

#: Characters of what a database says against creating tables.
LONGEST_REASON = 300
#: How often another server's set-up may be quicker, before that is an error as any other: more than there are steps.
OVERTAKEN = 30

#: Two threads that meet both look. Nothing is held meanwhile: to connect may take long.
_prepared: WeakKeyDictionary[Engine, WeakKeyDictionary[Models, Prepared]] = WeakKeyDictionary()


def prepare_models(engine: Engine, models: Models) -> Prepared:
    """Make the tables of ``models`` ready, and return what may be used.

    Raises:
        SchemaError: the tables are not there and this role may not create them.
        sqlalchemy.exc.DBAPIError: the database could not be reached.
    """
    by_models = _prepared.setdefault(engine, WeakKeyDictionary())
    known = by_models.get(models)
    if known is not None:
        return known
    prepared = _prepare(engine, models)
    return prepared if prepared.reads_only else by_models.setdefault(models, prepared)


def upgrade(engine: Engine, models: Models) -> tuple[State, exc.DBAPIError | None]:
    """Make the tables of ``models`` complete, if they are not; return what is there then, and what was refused.

    Raises:
        sqlalchemy.exc.DBAPIError: the database could not be reached.
    """
    impl = impl_for(engine.dialect.name)
    if impl.isolation_level:
        engine = engine.execution_options(isolation_level=impl.isolation_level)
    return _made_ready(engine, impl, models)


def _prepare(engine: Engine, models: Models) -> Prepared:
    impl = impl_for(engine.dialect.name)
    state, refused = upgrade(engine, models)
    if state.is_ahead:
        logger.info("a newer release has set the tables of %s up: they are used as they are", models.task.name)
    if not state.reads_only:
        _tell(engine, state, refused)
        _tell_of_strangers(state)
    return Prepared(_usable(impl, state, impl.counts_rows(engine)), state.reads_only)


def _made_ready(engine: Engine, impl: DefaultImpl, models: Models) -> tuple[State, exc.DBAPIError | None]:
    """What is there in the end, and what kept it from being complete.

    Who is refused looks again. If others have moved on meanwhile, such as an older release that knows no common lock,
    it tries again.
    """
    attempt, refused = 0, None
    state = _insisted(impl, lambda: _looked(engine, models))
    while not state.is_done and not state.reads_only and attempt < impl.setup_attempts:
        try:
            return _insisted(impl, partial(_upgraded, engine, impl, state)), None
        except exc.DBAPIError as error:
            if (impl.setup_attempts == 1 and impl.is_transient(error)) or impl.needed(error, engine.url):
                raise  # no matter of rights
            refused, before = error, state
        impl.pause(attempt)
        state = _insisted(impl, lambda: _looked(engine, models))
        attempt += state == before
    return state, refused


def _insisted(impl: DefaultImpl, operation: Callable[[], State]) -> State:
    """What ``operation`` returns, which is begun again where a set-up by way of another server was quicker."""
    for attempt in range(OVERTAKEN):
        try:
            return operation()
        except exc.DBAPIError as error:
            if not impl.is_overtaken(error):
                raise
        impl.pause(attempt)
    return operation()


def _looked(engine: Engine, models: Models) -> State:
    with connected(engine) as connection:
        _check_names(connection.dialect, models)
        state = look(connection, models)
        if state.reads_only and not state.is_usable:
            connection.invalidate()  # the next may be one to the primary
            raise exc.OperationalError("", None, ConnectionError(NO_TABLES), connection_invalidated=True)
        return state


def _check_names(dialect: sa.Dialect, models: Models) -> None:
    """How long a name may be is known once there was a connection."""
    longest = max(models.names, key=len)
    if len(longest) > dialect.max_identifier_length:
        raise SchemaError(
            f"{longest!r} has {len(longest)} characters, and this database takes names of at most "
            f"{dialect.max_identifier_length}: set shorter ones as database_table_names or database_table_schemas"
        )


def _upgraded(engine: Engine, impl: DefaultImpl, seen: State) -> State:
    """Make the tables complete under the lock, unless another process did so while we waited for it."""
    with connected(engine) as connection, impl.schema_lock(connection, seen.models.version_table):
        return _complete(connection, impl, seen.models)


def upgrade_within(connection: Connection, models: Models) -> None:
    """Make the tables of ``models`` complete in a transaction that somebody else has begun, and will commit.

    Raises:
        SchemaError: a name is too long for this database.
        sqlalchemy.exc.DBAPIError: the database has refused a statement.
    """
    impl = impl_for(connection.dialect.name)
    _check_names(connection.dialect, models)
    with impl.schema_lock_within(connection, models.version_table):
        _complete(connection, impl, models)


def _complete(connection: Connection, impl: DefaultImpl, models: Models) -> State:
    state = look(connection, models)
    if state.is_done:
        return state
    if state.is_ahead:
        create_missing(connection, state)
    else:
        migrate(connection, impl, state)
        before = ", ".join(sorted(state.versions or ())) or None
        logger.info("the tables of %s are at schema version %s (before: %s)", models.task.name, HEAD, before)
    return look(connection, models)


def _tell(engine: Engine, state: State, refused: exc.DBAPIError | None) -> None:
    """Say once what is not as it should be, with the SQL to run."""
    found = shortcomings(state)
    if state.is_usable and not found:
        return
    with connected(engine) as connection:
        sql = remedy(connection, state)
    if not state.is_usable:
        why = " ".join(str(refused.orig).split())[:LONGEST_REASON] if refused else "; ".join(found)
        raise SchemaError(
            f"the result tables of {named(engine.url)} are not complete and could not be created ({shown(why)}). "
            f"Let a role that may create tables run:\n{sql}"
        ) from refused and bare(refused)
    logger.warning(
        "%s. The backend does without, until a role that may create and alter tables and grant rights has run:\n%s",
        "; ".join(found),
        sql,
    )


def _tell_of_strangers(state: State) -> None:
    found = strangers(state)
    if found:
        logger.warning(
            "%s. What these roles write into triggers and defaults runs with the rights of this role, and owners of "
            "tables may read and change all results. If you trust them, let the tables lie in a schema that is theirs, "
            "and name it in database_table_schemas. Else drop the tables or triggers, or let a role that you trust own "
            "the tables (ALTER TABLE … OWNER TO …)",
            "; ".join(map(shown, found)),
        )


def _usable(impl: DefaultImpl, state: State, counts_rows: bool) -> Columns:
    usable = {table: found.columns & set(table.columns.keys()) for table, found in state.tables.items()}
    for tables in state.models.optional_for(impl):
        if not all(map(state.may_use, tables)):
            usable.update(dict.fromkeys(tables, frozenset()))
    if state.reads_only:
        for table in (state.models.waiters, state.models.workers):
            usable.pop(table, None)
    if not counts_rows:
        logger.warning("the dialect does not tell how many rows an UPDATE has changed: chords are left to Celery's way")
        usable.update(dict.fromkeys((state.models.chords, state.models.parts), frozenset()))
    return usable
