"""The rooms of one backend, put together: each is given what it needs when it is made."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from celery import states
from celery.exceptions import BackendGetMetaError
from celery.result import result_from_tuple
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from celery_sql_results.foreign import escaping, shown

from .chords import Chords, HandOver, Join, Members, Signer, Sweep
from .completing import Completion
from .connecting import ARGUMENTS, cannot_connect, misconnected
from .dialects import impl_for
from .errors import DatabaseUnusable, bare
from .models import Models
from .payload import Encoding, UnreadableMeta, redaction_for
from .rows import Database, Row, Rows, delete_chords, delete_results, delete_waiters
from .schema import Prepared
from .session import SessionManager
from .settings import READ_RETRIES, Settings
from .waiting import Looker, Share, Waits, arrives, looker_for
from .worker import GRACE, AtStart, Heart, LostTasks, Told, Work, began_at, seconds_until_killed, told_to_stop, who
from .writing import Emptier, Entry, Judge, Outage, Replay, Retries, Spool, Writer, describe, still

__all__ = ["Services"]

T = TypeVar("T")
logger = escaping(logging.getLogger(__name__))


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
        self._backend = backend
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
        self._name: str = backend.as_uri()
        self.spool = self._spool_of(settings)
        kept = self.spool.directory.path if self.spool else None
        self.outage = Outage(settings.url, self._name, settings.retry.writes, kept)
        self.retries = retries = Retries(self.judge, settings.retry, self.outage)
        self.writer = writer = Writer(database, self.judge, retries, payload, self.spool)
        fail, hurry = backend.chord_error_from_stack, self.in_a_hurry
        signer = Signer(settings.chord_secrets, settings.takes_unsigned_chords)
        self.hand_over = hand_over = HandOver(app, database, retries, Join(app, encoding), fail, signer, hurry)
        self.chords = Chords(app, database, encoding, payload, writer, retries, hand_over, signer, hurry)
        self.members = members = Members(app, database, retries, payload, encoding.content_type)
        self._sweep_chords = Sweep(database, retries, members, hand_over)
        self.replay = self._replay_of(models)
        self.emptier = Emptier(self.replay, self.is_away) if self.replay else None
        self.completion = Completion(database, retries, self._success, self.meta, lambda: encoding.dumps([]))
        share = Share(self._looker, retries, is_bounded=not impl.is_one_connection(make_url(settings.url)))
        self.waits = Waits(share, retries, self.meta, backend._cache)
        settings.place.before_others(self.let_go)

    # -- the database --------------------------------------------------------------------------------------------

    @property
    def of_engine(self) -> dict[str, Any]:
        """The options of the engine."""
        settings = self._settings
        kept = {"short_lived_sessions": settings.short_lived_sessions, "idle_timeout": settings.idle_timeout}
        told = {"client": partial(who, self._app.main), "origin": settings.origin}
        return {**settings.engine_options, **kept, **told}

    def engine(self) -> Engine:
        """The engine of this process."""
        return self._sessions.get_engine(self._settings.url, **self.of_engine)

    def let_go(self) -> None:
        """Close what is open and idle, so that the database can be dropped. The next use opens it again."""
        self.waits.share.let_go()
        self.engine().dispose()

    def _prepare(self, engine: Engine, models: Models) -> Prepared:
        try:
            prepared = self._sessions.prepare_models(engine, models)
        except DBAPIError as error:
            verdict = self.judge(error)
            if verdict.passes or verdict.time_limit:
                raise
            raise self._unusable(error) from bare(error)
        except ARGUMENTS as error:
            if not cannot_connect(engine, error):
                raise
            settings, options = self._settings, self._settings.engine_options
            has_own = settings.engine_callback is not None or "creator" in options
            told = misconnected(error, settings.origin, engine.url, options.get("connect_args", {}), has_own)
            raise told from told.__cause__
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
            self.outage.failed(error, at_once=True)

    def cleanup(self, expires: timedelta | None) -> None:
        """Delete what has expired: results after ``expires``, chords and rows of waiters after times of their own."""
        database = self.database

        def delete(some: Callable[..., int], *args: Any) -> int:
            return self.write("cleaning up", lambda: some(database.engine, database.impl, database.models, *args))

        deleted = 0 if expires is None else delete(delete_results, expires)
        rows = self._rows("cleaning up")
        self.sweep_waiters()
        if self._settings.chord_expires is not None and rows.chords is not None:
            deleted += delete(delete_chords, self._settings.chord_expires)
        logger.info("deleted %d expired results and chords", deleted)

    def read(self, name: str, operation: Callable[[], T]) -> T:
        """What ``operation`` reads, tried again as reads are."""
        found = self.retries.read(name, operation)
        self.outage.answered()
        self.answered()
        return found

    def write(self, name: str, operation: Callable[[], T]) -> T:
        """What ``operation`` returns, tried again as writes are: not by who has begun on a server that only reads."""
        done = self.retries.write(name, operation, lambda: self.database.reads_only)
        self.outage.answered(writes=True)
        self.answered()
        return done

    def is_away(self, error: BaseException) -> bool:
        """Whether an error is that of a database that is away. Then the log is told, once for all who ask."""
        if not self.judge.passes(error):
            return False
        self.outage.failed(error)
        return True

    def _rows(self, name: str) -> Rows:
        """The rows, which are there already as a rule: that is no answer of the database."""
        return self.retries.read(name, lambda: self.database.rows)

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

    def recorded(self, task_id: str) -> dict[str, Any]:
        """What is recorded of a task beside its outcome, if there is anything."""
        found = self.read(f"reading task {task_id}", lambda: self.database.rows.tasks.fetch_recorded(task_id))
        return self.encoding.recorded(found)

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

    def _success(self, task_id: str, value: Any, request: Any) -> Row:
        """The columns of a task that has returned a value."""
        encoded, state = self._backend.encode_result(value, states.SUCCESS), states.SUCCESS
        return self._backend.row_of(task_id, encoded, state, None, request)  # type: ignore[no-any-return]

    # -- the spool -----------------------------------------------------------------------------------------------

    def empty_spool(self, seconds: float = math.inf) -> bool:
        """Store what waits in the spool, for so long; return whether something may be left."""
        return self.replay is not None and self.replay(seconds)

    def _spool_of(self, settings: Settings) -> Spool | None:
        if settings.spool_dir is None:
            return None
        return Spool(settings.spool_dir, settings.url, settings.names, settings.spool_max_bytes, self._name)

    def _replay_of(self, models: Models) -> Replay | None:
        if self.spool is None:
            return None
        return Replay(self.spool.directory, models, self._restore, self.judge, self._reach)

    def answered(self, stored: bool = True) -> None:
        """The database has just answered, or an entry was kept instead: that concerns whoever empties the spool."""
        if self.emptier is not None:
            (self.emptier.poke if stored else self.emptier.wake)()

    def _restore(self, entry: Entry) -> None:
        self.writer.restore(entry)
        self.outage.answered(writes=True)
        if entry.chord is not None:
            self.chords.look_after(entry.chord)

    def _reach(self) -> None:
        self.database.rows.tasks.exists("")

    # -- beside the tasks of a worker ----------------------------------------------------------------------------

    @property
    def upkeep(self) -> Work:
        """What a worker does now and then, by what the log calls it."""
        closes = self.database.impl.closes_before_fork
        tasks = {
            "emptying the spool": self.empty_spool,
            "ending chords": self.sweep_chords,
            "sweeping waiters": self.sweep_waiters,
        }
        at_start = AtStart(self._name, self.database, self.spool, self._hears)
        held = still if closes else nullcontext()
        return Work(tasks, self._settings.upkeep_interval, self.is_away, held, at_start, self._heart, self._beside)

    def _heart(self, consumer: Any) -> Heart:
        """What says that a worker is alive."""
        told = Told.by(consumer, lambda: len(self.spool.directory.names()) if self.spool else 0)
        return Heart(self.database, self._write_once, told, self._settings.expires)

    def _beside(self, heart: Heart) -> dict[str, Callable[[], object]]:
        """What a worker does that can tell which others are alive."""
        after = self._settings.lost_after
        if after is None:
            return {}
        return {"ending lost tasks": LostTasks(self.database, self._write_once, self._failure, heart, after)}

    def _write_once(self, name: str, operation: Callable[[], T]) -> T:
        """What ``operation`` returns, which is not tried again: the next round comes soon."""
        with self.retries.at_most(0):
            return self.write(name, operation)

    def _failure(self, error: BaseException, traceback: str) -> Row:
        """The columns that tell that a task has failed, of which nothing else is known."""
        payload = self._backend.encode_result(error, states.FAILURE)
        row = self.encoding.to_row("", payload, states.FAILURE, traceback, None, None, None, False)
        return {name: row[name] for name in ("status", "result", "date_done", "traceback", "content_type")}

    def _hears(self) -> bool | None:
        """Whether notifications arrive; ``None`` where nobody sends any."""
        waiters, listening = self.database.rows.waiters, self._listening_engine()
        if waiters is None or not self.database.impl.can_listen(listening):
            return None
        return arrives(self.database.impl.listener(listening), waiters)

    def in_a_hurry(self) -> bool:
        """Whether it is better to keep a write than to try it again."""
        return self.spool is not None and told_to_stop()

    def ends_soon(self, request: Any) -> Callable[[], bool]:
        """Tells whether there is little time left to store the outcome of a task."""
        return lambda: told_to_stop() or seconds_until_killed(self._app, request) < GRACE

    # -- waiting -------------------------------------------------------------------------------------------------

    def _listening_engine(self) -> Engine:
        """One without a pool, which leads to where notifications come from."""
        url, options = self._settings.url, {**self.of_engine, "short_lived_sessions": True}
        if self._settings.listen_url and self.database.rows.waiters:
            url, options["origin"] = self._settings.listen_url, "database_listen_url"
        return self._sessions.get_engine(url, **options)

    def _looker(self) -> Looker:
        rows, settings = self.database.rows, self._settings
        pauses = settings.poll_min_interval, settings.poll_max_interval
        return looker_for(rows, self._listening_engine, pauses, settings.idle_timeout, self.outage, settings.extended)

    def sweep_chords(self) -> int:
        """End chords that nobody else does, looking at up to 500; return how many it has ended. See :class:`.Sweep`."""
        ended = self._sweep_chords()
        if self.database.rows.chords is not None:
            self.outage.answered()
        return ended

    def sweep_waiters(self) -> int:
        """Delete the rows of waiters that nobody has renewed for a while, and return how many."""
        database = self.database
        if self._rows("sweeping waiters").waiters is None:
            return 0
        return self.write("sweeping waiters", lambda: delete_waiters(database.engine, database.impl, database.models))
