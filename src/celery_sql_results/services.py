"""The rooms of one backend, put together: each is given what it needs when it is made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from celery.exceptions import BackendGetMetaError
from celery.result import result_from_tuple
from celery.utils.log import get_logger
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from celery_sql_results.foreign import escaping, shown

from .chords import Chords, HandOver, Join, Members, Signer, Sweep
from .dialects import impl_for
from .errors import DatabaseUnusable, bare
from .models import Models
from .payload import Encoding, UnreadableMeta, redaction_for
from .rows import Database, Row, delete_chords, delete_results, delete_waiters
from .schema import Prepared
from .session import SessionManager
from .settings import READ_RETRIES, Settings
from .waiting import Looker, Share, Waits, looker_for
from .worker import GRACE, began_at, seconds_until_killed, told_to_stop
from .writing import Emptier, Entry, Judge, Replay, Retries, Spool, Writer, describe

__all__ = ["Services"]

T = TypeVar("T")
logger = escaping(get_logger(__name__))


class Services:
    """What does the work for one backend.

    Args:
        backend: has what Celery lets a subclass change: how values are encoded, and how the body of a chord fails.
        settings: the settings of the backend.
        models: its tables.
        sessions: makes its engine.

    Raises:
        SettingError: the directory of the spool cannot be used.
    """

    def __init__(self, backend: Any, settings: Settings, models: Models, sessions: SessionManager) -> None:
        self._app = app = backend.app
        self._settings = settings
        self._sessions = sessions
        impl = impl_for(make_url(settings.url).get_backend_name())
        self.encoding = encoding = Encoding(
            backend.serializer,
            backend.accept,
            settings.compression,
            settings.max_decompressed,
            redaction_for(settings.redact, app),
        )

        def payload(value: Any, state: str) -> bytes:
            return encoding.dumps(backend.encode_result(value, state))

        self.database = database = Database(
            self.engine, impl, models, self._prepare, settings.extended, settings.listen
        )
        self.judge = Judge(impl, self.engine, lambda: database.was_reached and self.spool is None)
        self.retries = retries = Retries(self.judge, settings.retry)
        self.spool = self._spool_of(settings)
        self.writer = writer = Writer(database, self.judge, retries, payload, self.spool)
        fail, hurry = backend.chord_error_from_stack, self.in_a_hurry
        signer = Signer(settings.chord_secrets, settings.takes_unsigned_chords)
        hand_over = HandOver(app, database, retries, Join(app, encoding), fail, signer, hurry)
        self.chords = Chords(app, database, encoding, payload, writer, retries, hand_over, signer, hurry)
        members = Members(app, database, retries, payload, encoding.content_type)
        self.sweep_chords = Sweep(database, retries, members, hand_over)
        self.replay: Replay | None = None
        self.emptier: Emptier | None = None
        if self.spool is not None:
            self.replay = Replay(self.spool.directory, models, self._restore, self.judge, self._reach)
            self.emptier = Emptier(self.replay, self.judge.passes)
        share = Share(self._looker, retries, is_bounded=not impl.is_one_connection(make_url(settings.url)))
        self.waits = Waits(share, retries, self.meta, backend._cache)

    # -- the database --------------------------------------------------------------------------------------------

    @property
    def of_engine(self) -> dict[str, Any]:
        """The options of the engine."""
        settings = self._settings
        kept = {"short_lived_sessions": settings.short_lived_sessions, "idle_timeout": settings.idle_timeout}
        return {**settings.engine_options, **kept}

    def engine(self) -> Engine:
        """The engine of this process."""
        return self._sessions.get_engine(self._settings.url, **self.of_engine)

    def _prepare(self, engine: Engine, models: Models) -> Prepared:
        try:
            prepared = self._sessions.prepare_models(engine, models)
        except DBAPIError as error:
            verdict = self.judge(error)
            if verdict.passes or verdict.time_limit:
                raise
            raise self._unusable(error) from bare(error)
        if self.emptier and self.spool and self.spool.may_hold_entries():  # which others have left
            self.emptier.wake(at_once=True)
        return prepared

    def _unusable(self, error: DBAPIError) -> DatabaseUnusable:
        needed = self.judge.needed(error)
        found = f"{self._settings.origin} is {self.database.name}, which cannot be used ({shown(describe(error))})"
        return DatabaseUnusable(f"{found}. Needed: {needed}" if needed else found)

    def prepare_now(self) -> None:
        """Make the tables ready. One that is down keeps nobody from starting: the first use tries again."""
        try:
            with self.retries.at_most(READ_RETRIES):
                self.read("preparing the tables", lambda: self.database.rows)
        except SQLAlchemyError as error:
            if not self.judge(error).passes:
                raise
            reached = (self.database.name, describe(error))
            logger.warning("the result database %s cannot be reached yet, first use will try again (%s)", *reached)

    def cleanup(self, expires: timedelta | None) -> None:
        """Delete what has expired: results after ``expires``, chords and rows of waiters after times of their own."""
        database = self.database

        def delete(some: Callable[..., int], *args: Any) -> int:
            return self.write("cleaning up", lambda: some(database.engine, database.impl, database.models, *args))

        deleted = 0 if expires is None else delete(delete_results, expires)
        rows = self.read("cleaning up", lambda: database.rows)
        self.sweep_waiters()
        if self._settings.chord_expires is not None and rows.chords is not None:
            deleted += delete(delete_chords, self._settings.chord_expires)
        logger.info("deleted %d expired results and chords", deleted)

    def read(self, name: str, operation: Callable[[], T]) -> T:
        """What ``operation`` reads, tried again as reads are."""
        found = self.retries.read(name, operation)
        self.answered()
        return found

    def write(self, name: str, operation: Callable[[], T]) -> T:
        """What ``operation`` returns, tried again as writes are: not by who has begun on a server that only reads."""
        done = self.retries.write(name, operation, lambda: self.database.reads_only)
        self.answered()
        return done

    def task_row(self, task_id: str) -> Row | None:
        """The row of a task, if there is one.

        Raises:
            BackendGetMetaError: the database could not be reached for as long as the settings say.
        """
        try:
            return self.read(f"reading task {task_id}", lambda: self.database.rows.tasks.fetch(task_id))
        except SQLAlchemyError as error:
            if not self.judge(error).passes:
                raise
            reason = f"{self.database.name} cannot be reached ({shown(describe(error))})"
            raise BackendGetMetaError(f"the result database {reason}", task_id=task_id) from bare(error)

    def row(self, task_id: str, result: Any, state: str, traceback: str | None, children: Any, request: Any) -> Row:
        """The columns that one write of a task sets."""
        known, extended = request if self._settings.records else None, self._settings.extended
        return self.encoding.to_row(task_id, result, state, traceback, children, known, began_at(known), extended)

    def meta(self, row: Row) -> dict[str, Any]:
        """What Celery calls the meta of a task."""
        meta = self.encoding.to_meta(row)
        if isinstance(meta, UnreadableMeta) and meta.get("children"):  # as a result makes them of a meta that it keeps
            meta["children"] = [result_from_tuple(child, self._app) for child in meta["children"]]
        return meta

    # -- the spool -----------------------------------------------------------------------------------------------

    def _spool_of(self, settings: Settings) -> Spool | None:
        if settings.spool_dir is None:
            return None
        return Spool(settings.spool_dir, settings.url, settings.names, settings.spool_max_bytes)

    def answered(self, stored: bool = True) -> None:
        """The database has just answered, or an entry was kept instead: that concerns whoever empties the spool."""
        if self.emptier is not None:
            (self.emptier.poke if stored else self.emptier.wake)()

    def _restore(self, entry: Entry) -> None:
        self.writer.restore(entry)
        if entry.chord is not None:
            self.chords.look_after(entry.chord)

    def _reach(self) -> None:
        self.database.rows.tasks.exists("")

    def in_a_hurry(self) -> bool:
        """Whether it is better to keep a write than to try it again."""
        return self.spool is not None and told_to_stop()

    def ends_soon(self, request: Any) -> Callable[[], bool]:
        """Tells whether there is little time left to store the outcome of a task."""
        return lambda: told_to_stop() or seconds_until_killed(self._app, request) < GRACE

    # -- waiting -------------------------------------------------------------------------------------------------

    def _looker(self) -> Looker:
        rows, settings = self.database.rows, self._settings
        url = (settings.listen_url if rows.waiters else None) or settings.url
        engine = partial(self._sessions.get_engine, url, short_lived_sessions=True, **settings.engine_options)
        pauses = settings.poll_min_interval, settings.poll_max_interval
        return looker_for(rows, engine, pauses, settings.idle_timeout, settings.extended)

    def sweep_waiters(self) -> int:
        """Delete the rows of waiters that nobody has renewed for a while, and return how many."""
        database = self.database
        if self.read("sweeping waiters", lambda: database.rows).waiters is None:
            return 0
        return self.write("sweeping waiters", lambda: delete_waiters(database.engine, database.impl, database.models))
