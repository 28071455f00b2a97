"""What the package asks of a database, answered in portable SQL.

:class:`DefaultImpl` works on every database that SQLAlchemy speaks to, with more round trips than the ones that know
their database. A subclass holds only what its database does differently. Tables arrive as arguments.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.engine.url import URL

from celery_sql_results.connections.pool import UNSENT, committed

from .contracts import ChangeCounter, Listener
from .indexes import Indexes
from .inspection import Found, inspect_tables
from .puts import Put, Row, insert, update
from .reads import Reads
from .refusals import reason_of
from .sqlstates import CONSTRAINT, DATA, PASSING, is_of, sqlstate
from .tending import Tending
from .transactions import Transactions
from .types import utc_now

#: Seconds between two attempts of a portable set-up, doubled each time.
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0


class DefaultImpl:
    """A database that we know nothing of: correct, in more steps."""

    reads = Reads()
    tending = Tending()
    transactions = Transactions()
    #: Isolation level of the engine. ``AUTOCOMMIT`` makes one statement one round trip.
    isolation_level: str | None = None
    #: Isolation level of a session that somebody asks for; ``None`` is the driver's default.
    session_isolation_level: str | None = None
    #: ``FOR UPDATE SKIP LOCKED``: two cleanups share the work instead of waiting for each other.
    supports_skip_locked = False
    #: ``FOR UPDATE NOWAIT``: a row that somebody holds is an error at once.
    supports_nowait = False
    #: Idle connections must not be inherited by a fork, not even unused.
    closes_before_fork = False
    #: How often in a row a DELETE may have ended too early without a word.
    silent_ends = 0
    #: Texts that differ only in trailing blanks are equal.
    pads = False
    #: :meth:`is_taken` means the id, and nothing else.
    knows_taken_ids = False
    #: Waiters can be notified: there is a table for them, and a :class:`Listener`.
    supports_notify = False
    #: How often the set-up is tried where no lock keeps others out.
    setup_attempts = 10
    #: What a GRANT says of a sequence that ids come from, up to its name.
    sequence_grant = ""
    #: How the query of a URL names several hosts with ports of their own, where drivers can be given them.
    several_hosts: str | None = None
    #: The drivers that may be used, by SQLAlchemy's names, each with what pip installs for it.
    drivers: Mapping[str, str] = MappingProxyType({})
    #: Most values that one statement may carry: here as many ids, of four bytes a character, as 64 KB take.
    max_parameters = 100
    indexes = Indexes()

    def engine_options(self, url: URL) -> dict[str, Any]:
        """Options for ``create_engine`` that this database needs; the user's own come on top."""
        return {}

    def server(self, dialect: sa.Dialect) -> str:
        """Which server it is, and of which version, once there was a connection."""
        return self._server(dialect, dialect.name)

    def _server(self, dialect: sa.Dialect, name: str) -> str:
        numbers = [str(part) for part in dialect.server_version_info or () if isinstance(part, int)]
        return f"{name} {'.'.join(numbers[:3])}".strip()

    def introduction(self, driver: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a driver more, that tell the server who connects, if the user's own do not."""
        return {}

    def is_one_connection(self, url: URL) -> bool:
        """Whether the database is there only on the connection that has opened it: it is kept, and shared."""
        return False

    def share(self, engine: Engine, timeout: float | None) -> None:
        """Let the threads that use an engine without a pool have one connection in turn, within ``timeout`` seconds."""
        raise NotImplementedError

    def on_connect(self, dbapi_connection: DBAPIConnection) -> None:
        """Prepare a new connection, before the user's listeners do."""

    def settle(self, dbapi_connection: DBAPIConnection, dialect: sa.Dialect) -> None:
        """Let a new connection keep our promises, after the user's listeners: times are UTC, a commit is a commit.

        ``dialect`` is that of its engine, which no other engine has.
        """

    def connect(self, engine: Engine) -> AbstractContextManager[Connection]:
        """A connection whose statements are committed when the block has ended."""
        return committed(engine)

    def connect_quickly(self, engine: Engine) -> AbstractContextManager[Any]:
        """Like :meth:`connect`, for the few statements of storing and finding: those that are built once."""
        return self.connect(engine)

    def put_at_once(self, engine: Engine, where: Put, row: Row) -> bool:
        """Put a row past SQLAlchemy, where that is the same. ``False`` if nothing was done, and :meth:`put` is next."""
        return False

    def put(self, connection: Connection, where: Put, row: Row, wake: sa.Executable | None = None) -> bool:
        """Insert ``row``, or replace the one with the same key unless its status is protected.

        Return whether somebody may wait for it, who was not woken yet by ``wake``: see :meth:`wake`.
        """
        if self._found(connection, where, row):
            keys = {f"{key}_": row[key] for key in where.keys}
            connection.execute(where.statement(update, tuple(row)), {**row, **keys})
        else:
            connection.execute(where.statement(insert, tuple(row)), row)
        return False

    def put_both(self, connection: Connection, where: Put, row: Row, parts: Put, part: Row) -> bool:
        """:meth:`put` a row and a part of a chord: both, or none."""
        self.put(connection, parts, part)
        return self.put(connection, where, row)

    def put_once(self, connection: Any, where: Put, row: Row) -> bool:
        """Put a row in a transaction of somebody else's; ``False`` if what is there is protected.

        ``connection`` has ``execute``, whose result has a ``rowcount``. Here an error may mean the same.
        """
        keys = {f"{key}_": row[key] for key in where.keys}
        if connection.execute(where.statement(update, tuple(row)), {**row, **keys}).rowcount == 0:
            connection.execute(where.statement(insert, tuple(row)), row)
        return True

    def is_taken(self, error: BaseException) -> bool:
        """Whether a row was not put because another may have its new id.

        Here also where somebody else was quicker to insert its key, and what else a constraint may say of a row.
        """
        return isinstance(error, exc.IntegrityError) or is_of(sqlstate(error), CONSTRAINT)

    def begin_again(self, connection: Any) -> None:
        """Let what was not put be put again. Here in a new transaction: this one may not see what is in its way."""
        connection.rollback()

    def move_on(self, connection: Any, table: sa.Table) -> None:
        """Let new ids of a table be larger than those that are there; here, each attempt draws the next."""

    def _found(self, connection: Connection, where: Put, row: Row) -> bool:
        same = (where.table.c[key] == row[key] for key in where.keys)
        return connection.execute(sa.select(sa.true()).where(*same)).first() is not None

    def now(self, offset: timedelta = timedelta()) -> sa.ColumnElement[datetime]:
        """The time in UTC when a statement runs, ``offset`` later, by the database's clock; here by this host's."""
        return sa.bindparam(None, callable_=lambda: utc_now() + offset, type_=sa.DateTime())

    def size_of(self, column: sa.ColumnElement[bytes]) -> sa.ColumnElement[int]:
        """How many bytes a value has."""
        return sa.func.octet_length(column, type_=sa.Integer)

    def counts_rows(self, engine: Engine) -> bool:
        """Whether an UPDATE tells how many rows it has changed: chords elect by that."""
        return bool(engine.dialect.supports_sane_rowcount)

    def unsynced(self, update: sa.Update) -> sa.Executable:
        """``update``, but its commit need not wait for the disk: a crash of the server may undo it."""
        return update

    def can_listen(self, engine: Engine) -> bool:
        """Whether there is a :meth:`listener` for the driver of an engine; else results are polled."""
        return False

    def counts_changes(self, engine: Engine) -> bool:
        """Whether there is a :meth:`change_counter`."""
        return False

    def change_counter(self, engine: Engine) -> ChangeCounter:
        """A way to know whether anybody has written, far cheaper than a query."""
        raise NotImplementedError

    def listener(self, engine: Engine) -> Listener:
        """A connection that listens, on an engine without a pool. For databases that support it, like the next six."""
        raise NotImplementedError

    def leave_rows(self, found: sa.Select[Any], waiters: sa.Table, finished: Collection[str]) -> sa.Select[Any]:
        """``found``, which also leaves rows in ``waiters`` for the tasks that are not ``finished``.

        It binds ``ids_`` and ``channel``, and renews rows that are there.
        """
        raise NotImplementedError

    def leave_row(self, found: sa.Select[Any], waiters: sa.Table, finished: Collection[str]) -> sa.Select[Any]:
        """:meth:`leave_rows` for the one task that ``found`` binds as ``id_``."""
        raise NotImplementedError

    def withdraw(self, waiters: sa.Table) -> sa.Delete:
        """Remove the rows in ``waiters`` of ``channel_`` and ``ids_``."""
        raise NotImplementedError

    def sweep(self, waiters: sa.Table) -> sa.Delete:
        """Remove the rows in ``waiters`` that were not renewed for ``seconds_``, by the clock of the server."""
        raise NotImplementedError

    def wake(self, waiters: sa.Table, finished: bool) -> sa.Executable:
        """Notify everybody who waits for ``task_id_``."""
        raise NotImplementedError

    def notify(self) -> sa.Select[Any]:
        """Send the notification ``message_`` to ``channel_``."""
        raise NotImplementedError

    def look_at(self, connection: Connection, tables: Sequence[sa.Table]) -> dict[sa.Table, Found]:
        """What is there of ``tables``, and what this role may do with them, as far as the database tells."""
        return inspect_tables(connection, tables)

    def grantee(self, connection: Connection) -> str | None:
        """This role, as a GRANT names it; ``None`` where :meth:`look_at` knows nothing of rights."""
        return None

    def one_of(self, column: sa.ColumnElement[str], name: str = "ids_") -> sa.ColumnElement[bool]:
        """``column`` is one of the ids that are bound under a name, as a list."""
        return column.in_(sa.bindparam(name, expanding=True))

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        """A transaction in which all tables of this package are ours to change: one lock, whatever their names.

        Two sets of tables may have a sequence or a schema in common. ``name`` is that of the version table: 0.1 locked
        nothing else, so its lock is taken as well. Here without a lock: who loses the race fails, and tries again.
        """
        yield
        connection.commit()

    def schema_lock_within(self, connection: Connection, name: str) -> AbstractContextManager[None]:
        """:meth:`schema_lock` in a transaction that somebody else has begun, and ends; here without a lock."""
        return nullcontext()

    def publish(self, connection: Connection) -> None:
        """Let what was created under :meth:`schema_lock` be used. Here by a commit: some databases want one first."""
        connection.commit()

    def unless_refused(self, connection: Connection) -> AbstractContextManager[None]:
        """A block of the set-up that is undone where the server does not know what it asks for; here it knows."""
        return nullcontext()

    def has_other_primaries(self, connection: Connection) -> bool:
        """Whether other servers take writes to the same tables: :meth:`schema_lock` keeps nobody there out."""
        return False

    def is_overtaken(self, error: exc.DBAPIError) -> bool:
        """Whether a statement of the set-up has failed because another server has changed the same tables."""
        return False

    def sequence_options(self, connection: Connection) -> dict[str, Any]:
        """What a new sequence of ids must be told on this server."""
        return {}

    def pause(self, attempt: int) -> None:
        """Sleep before the set-up is tried again; ``attempt`` counts from 0."""
        time.sleep(min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE))

    def is_demoted(self, orig: BaseException, dbapi_connection: Any) -> bool:
        """Whether a driver's error says that the server is not the primary any more, or none that serves.

        Such a server is as good as lost. Where its error may also mean something else, it is asked, on the connection
        on which the error was raised; there is none if there was no connection yet.
        """
        return False

    def leave_demoted(self, engine: Engine) -> None:
        """Let the connections of an engine be closed, and its pool leave them, where :meth:`is_demoted` says so."""
        dialect: Any = engine.dialect
        is_disconnect = dialect.is_disconnect

        def is_lost(orig: Any, dbapi_connection: Any, cursor: Any) -> bool:
            return is_disconnect(orig, dbapi_connection, cursor) or self.is_demoted(orig, dbapi_connection)

        dialect.is_disconnect = is_lost

    def qualify(self, engine: Engine) -> None:
        """Let a new engine's statements mean the database's own operators, where somebody may have made others."""

    def is_transient(self, error: BaseException) -> bool:
        """Whether the same statement may succeed later: the connection was lost, or the server is busy."""
        if isinstance(error, exc.TimeoutError):  # every connection of the pool is in use
            return True
        if not isinstance(error, exc.DBAPIError) or error.orig is None:
            return False
        return error.connection_invalidated or self._is_transient(error, error.orig)

    def _is_transient(self, error: exc.DBAPIError, orig: BaseException) -> bool:
        return isinstance(error, (exc.OperationalError, exc.InterfaceError)) or is_of(sqlstate(error), PASSING)

    def delete_some(self, connection: Any, key: sa.Column[int], where: sa.ColumnElement[bool], limit: int) -> int:
        """Delete at most ``limit`` rows, and return how many were there.

        Here those that were found just now: some databases ask a subquery anew for each row, and count none.
        """
        found: list[int] = list(connection.scalars(sa.select(key).where(where).limit(limit)))
        for start in range(0, len(found), self.max_parameters // 2):
            some = key.in_(found[start : start + self.max_parameters // 2])
            connection.execute(sa.delete(key.table).where(some, where))
        return len(found)

    def needed(self, error: exc.DBAPIError, url: URL) -> str | None:
        """What must be changed before a connection can succeed. ``None`` where that is unknown, or it may pass."""
        return None

    def is_timed_out(self, error: BaseException) -> bool:
        """Whether the server ended a statement because it took longer than is allowed there: less may fit in."""
        return isinstance(error, exc.DBAPIError) and error.orig is not None and self._is_timed_out(error.orig)

    def _is_timed_out(self, orig: BaseException) -> bool:
        return False

    def leave_rows_out(self, error: BaseException) -> None:
        """Let an error tell nothing of the row that a statement was to write."""

    def refusal(self, error: BaseException, engine: Engine) -> str | None:
        """Why the values of a statement can never be stored, in one line; ``None`` if they are not what failed.

        Where the server just hangs up on a statement that is too large, it is asked for its limit.
        """
        if isinstance(error, UNSENT):
            return reason_of(error)
        if not isinstance(error, exc.DBAPIError) or error.orig is None:
            return None
        if error.connection_invalidated:
            return self._oversize(error, engine)
        return reason_of(error.orig) if self._is_refusal(error, error.orig) else None

    def _is_refusal(self, error: exc.DBAPIError, orig: BaseException) -> bool:
        return isinstance(error, exc.DataError) or is_of(sqlstate(error), DATA)

    def _oversize(self, error: exc.DBAPIError, engine: Engine) -> str | None:
        """Why a statement was too large for the server that hung up on it, or ``None``."""
        return None
