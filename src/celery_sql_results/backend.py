"""Celery's contract of a result backend: its methods, each in terms of the rooms that do the work."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from celery import states
from celery.backends.base import BaseBackend
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import result_from_tuple
from celery.utils.time import maybe_timedelta
from sqlalchemy.orm import Session

from .boundaries import caught
from .chords import ends_of, is_over, mark, mark_outcome, part_with, request_of
from .ids import asked_id, stored_id
from .models import MappedClass, Task, TaskSet, models_with, row_of
from .payload import pending, restored, stand_in, storable
from .publishing import keep_for, will_send
from .services import Services
from .session import SessionManager
from .settings import Settings, origin_of
from .urls import as_uri
from .waiting import Looker, Wait, Waits, install, metas, when_closed
from .writing import GROUP, TASK, Entry, StruckMeanwhile

__all__ = ["DatabaseBackend"]


class DatabaseBackend(BaseBackend):
    """Task and group results in a SQL database.

    Args:
        dburi: URL of the database, if ``url`` is not given.
        engine_options: options of ``create_engine``, on top of ``database_engine_options``.
        url: URL of the database; what Celery takes from ``result_backend``.
        kwargs: ``short_lived_sessions`` and ``engine_callback`` override their settings; ``app``, ``serializer``,
            ``accept``, ``expires`` and ``max_cached_results`` are those of every Celery backend.

    Raises:
        SettingError, SchemaError: a setting cannot work; the tables are not there and may not be created.
    """

    #: The classes of the rows. A subclass may name its own, with more columns, which :meth:`_update_result` fills in.
    task_cls: Any = MappedClass(Task, 0, 1)
    taskset_cls: Any = MappedClass(TaskSet, 2, 2)
    supports_native_join = supports_result_compression = True
    is_async = True  # results call back by themselves

    def __init__(
        self,
        dburi: str | None = None,
        engine_options: dict[str, Any] | None = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        conf = kwargs["app"].conf
        given = {f"database_{name}": kwargs.pop(name, None) for name in ("short_lived_sessions", "engine_callback")}
        given |= {"database_url": url or dburi, "database_engine_options": engine_options}
        given |= {"result_expires": kwargs.get("expires"), "result_serializer": kwargs.get("serializer")}
        given["result_accept_content"] = kwargs.get("accept")
        self._read = partial(Settings.read, conf, origin_of(url, dburi), **given)
        self.settings = settings = self._read()
        kwargs |= {"url": settings.url, "serializer": settings.serializer, "accept": settings.accept}
        super().__init__(expires_type=maybe_timedelta, **kwargs)
        self.always_retry, self.expires = (
            False,
            settings.expires,
        )  # our retries are enough: Celery's would multiply them
        #: Whether ``result_extended`` is on, and whether no connection is held while idle.
        self.extended_result, self.short_lived_sessions = settings.extended, settings.short_lived_sessions
        self.thread_safe = conf.get("result_backend_thread_safe") is not False  # one serves all threads of an app
        self.session_manager = SessionManager(settings.engine_callback)
        own = (inspect.getattr_static(self, name) for name in ("task_cls", "taskset_cls"))
        self.models = models_with(settings.names, *(cls if isinstance(cls, type) else None for cls in own))
        install(self.app)
        self._begin()
        if settings.create_tables_at_setup:
            self._made.prepare_now()

    def _begin(self) -> None:
        self._made = services = Services(self, self.settings, self.models, self.session_manager)
        self.database, self.completion, self.upkeep = services.database, services.completion, services.upkeep
        self.spool = services.spool and services.spool.directory
        self.engine_options = dict(self.settings.engine_options)
        when_closed(self.app, services.waits)

    @property
    def _services(self) -> Services:
        """What does the work: another, where the URL leads to another database than before."""
        if self.settings.place.is_elsewhere:
            self._made.let_go()
            self.settings = self._read()
            self._begin()
        return self._made

    def ResultSession(self, session_manager: SessionManager | None = None) -> Session:
        """A session of SQLAlchemy on tables that are ready. Use it with ``session_cleanup``."""
        manager = session_manager or self.session_manager
        engine, maker = manager.create_session(self.settings.url, **self._services.of_engine)
        manager.prepare_models(engine, self.models)
        return maker()

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whether the same operation may succeed later."""
        return self._services.judge.passes(exc)

    def _ensure_retryable(self, func: Any, *args: Any, max_retries: float | None = None, **kwargs: Any) -> Any:
        """Call ``func``, which tries again and tells of errors by itself: not more often than Celery wants."""
        given = {name: value for name, value in kwargs.items() if not name.startswith("fallback_")}
        if max_retries is None:
            return func(*args, **given)
        with self._services.retries.at_most(max_retries):
            return self.completion.as_done(func(*args, **given))

    @property
    def spooled(self) -> int:
        """How many results wait in the spool; 0 without one."""
        return len(self.spool.names()) if self.spool else 0

    def replay(self, seconds: float = math.inf) -> bool:
        """Store what waits in the spool, for so long; return whether something may be left.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot be reached, or does not take an entry for now.
            OSError: the spool, or an entry, cannot be read.
        """
        return self._services.empty_spool(seconds)

    # -- tasks ---------------------------------------------------------------------------------------------------

    def on_task_call(self, producer: Any, task_id: str) -> dict[str, Any]:
        """A task is published: its message is to say when; refuse an id under which its result could not be stored.

        Raises:
            TaskIdInvalid: no column can hold the id.
        """
        stored_id("task", task_id)
        will_send(task_id if self.settings.records else None)
        return {}

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a state and a result, unless what is stored may not be replaced; return the result as it is stored.

        Raises:
            TaskIdInvalid: no column can hold the id.
            BackendStoreError: the database could not be reached for as long as the settings say.
            kombu.exceptions.EncodeError: the serializer cannot write the result.
        """
        try:
            return self._encode_and_store(task_id, result, state, traceback, request=request, **kwargs)
        except StruckMeanwhile:
            raise
        except SoftTimeLimitExceeded:  # it strikes once, anywhere; an outcome goes before
            if state not in states.READY_STATES:
                raise
            encoded = self._encode_and_store(task_id, result, state, traceback, request=request, **kwargs)
            if is_over():
                return encoded
            raise

    def _encode_and_store(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        encoded = self.encode_result(result, state)
        self._store_result(task_id, encoded, state, *args, **kwargs)
        return encoded

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        services, row = self._services, self.row_of(task_id, result, state, traceback, request)
        if self.completion.is_settled(request, row):
            return result
        part = part_with(request, row)
        stored = services.writer.write(Entry(TASK, row, part), services.ends_soon(request), is_over)
        if part is not None:
            mark(request, stored)
        services.answered(stored)
        return result

    def row_of(self, task_id: str, result: Any, state: str, traceback: str | None, request: Any) -> Mapping[str, Any]:
        """The columns that one write of a task sets; ``result`` is encoded."""
        known = self.current_task_children(request), request
        row = self._services.row(stored_id("task", task_id), result, state, traceback, *known)
        has_own = type(self)._update_result is not DatabaseBackend._update_result
        return self._updated(row, result, state, traceback, request) if has_own else row

    def _updated(self, row: Mapping[str, Any], *args: Any) -> dict[str, Any]:
        task = self.task_cls(row["task_id"])
        vars(task).update(row)
        self._update_result(task, *args)
        return {**row, **row_of(task)}  # its class need not map all columns

    def _update_result(
        self, task: Any, result: Any, state: str, traceback: str | None = None, request: Any = None
    ) -> None:
        """For a subclass: set what else is stored on ``task``, an object of :attr:`task_cls` with all that is known."""

    def encode_result(self, result: Any, state: str) -> Any:
        """A value or an exception as it is stored. Celery before 5.7 takes a ``BaseException`` for a value."""
        is_exception = state in states.EXCEPTION_STATES and isinstance(result, BaseException)
        return self.prepare_exception(result) if is_exception else self.prepare_value(result)

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """An exception as it is stored. Whatever is wrong with it, something is."""
        with caught():  # its arguments may be properties that raise
            return super().prepare_exception(storable(exc, self.encode), serializer)
        return super().prepare_exception(stand_in(exc), serializer)

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """The exception that was stored; one that was read is restored already."""
        return exc if isinstance(exc, BaseException) else restored(exc)

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """The meta as it is: Celery asks for this once more when a result takes what was read."""
        return meta

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        """The meta of a task; that of a pending one if it has no row. For what is raised, see ``Services.task_row``."""
        row = (id_ := asked_id(task_id)) and self._services.task_row(id_)
        return self._services.meta(row) if row else pending(task_id)

    def recorded(self, task_id: str) -> dict[str, Any]:
        """The name, worker, queue, retries, times and relatives of a task, which whoever waits does not read."""
        return self._services.recorded(id_) if (id_ := asked_id(task_id)) else {}

    def task_result_exists(self, task_id: str) -> bool:
        """Whether the task has a row, in whatever state."""
        id_, read = asked_id(task_id), self._services.read
        return id_ is not None and read(f"looking for task {id_}", lambda: self.database.rows.tasks.exists(id_))

    def _forget(self, task_id: str) -> None:
        if (id_ := asked_id(task_id)) is not None:
            self._services.write(f"forgetting task {id_}", lambda: self.database.rows.tasks.forget(id_))

    def states_of(self, task_ids: Collection[str]) -> dict[str, str]:
        """The states of those of ``task_ids`` that have a row, in one query that reads no results."""
        asked = {id_: task_id for task_id in task_ids if (id_ := asked_id(task_id)) is not None}
        found = self._services.read("reading states", lambda: self.database.rows.tasks.fetch_states(asked))
        return {asked[id_]: state for id_, state in found.items()}

    # -- waiting -------------------------------------------------------------------------------------------------

    def wait_for(self, task_id: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The meta of a task when it is ready; see :meth:`.Waits.one`."""
        return self.waits.one(task_id, *args, **kwargs)

    def wait_for_pending(
        self, result: Any, *args: Any, callback: Any = None, propagate: bool = True, **kwargs: Any
    ) -> Any:
        """The value of a result when it is ready, or what its task raised; see ``AsyncResult.get``."""
        self.waits.result(result, *args, **kwargs)
        return result.maybe_throw(callback=callback, propagate=propagate)

    def iter_native(self, result: Any, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Yield ``(id, meta)`` of the members of a set as they become ready; of a nested set, its id and results."""
        return metas(result.results, *args, **kwargs)

    def awaiting(self, *args: Any) -> AbstractContextManager[Wait]:
        """A wait for tasks, for the length of a block; see :meth:`.Waits.begin`."""
        return self.waits.begin(*args)

    def get_many(self, task_ids: Iterable[str], *args: Any, **kwargs: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(task id, meta)`` of each task as it is ready; see :meth:`.Waits.many`."""
        return self._services.waits.many(task_ids, *args, **kwargs)

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:
        """Nothing to prepare: a wait begins with :meth:`wait_for_pending`, and ``then`` with :meth:`watch`."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Take :meth:`watch` back. This is called whenever a result object ends, so it must not wait for anything."""
        self._services.waits.unwatch(result)
        return result

    def watch(self, results: Collection[Any]) -> None:
        """Fulfil results as soon as they are ready, in the thread that finds them, while somebody has them."""
        self._services.waits.watch(results)

    @property
    def waits(self) -> Waits:
        """What waits through this backend."""
        self._ensure_not_eager()
        return self._services.waits

    @property
    def looker(self) -> Looker:
        """What looks for those who wait through this backend, and others on the same tables in this process."""
        return self._services.waits.share.looker

    # -- groups --------------------------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        """Store the members of a group; saving it again replaces them."""
        services = self._services
        row = services.encoding.to_group_row(stored_id("group", group_id), result.as_tuple())
        services.answered(services.writer.write(Entry(GROUP, row), services.in_a_hurry))
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        id_, read = asked_id(group_id), self._services.read
        row = id_ and read(f"reading group {id_}", lambda: self.database.rows.groups.fetch(id_))
        if not row:
            return None
        members = self._services.encoding.members(row)
        result = members and result_from_tuple(members, self.app)
        return {"taskset_id": row["taskset_id"], "result": result, "date_done": row["date_done"]}

    def _delete_group(self, group_id: str) -> None:
        if (id_ := asked_id(group_id)) is not None:
            self._services.write(f"deleting group {id_}", lambda: self.database.rows.groups.forget(id_))

    # -- chords --------------------------------------------------------------------------------------------------

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """Begin a chord, before its parts are sent."""
        keep_for(ends_of(body))
        if self.settings.native_chords and self._services.chords.are_there:
            self._services.chords.open(header_result_args, body)
        else:
            super().apply_chord(header_result_args, body, **kwargs)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Say how many parts a chord has, before its last part is sent."""
        if self._services.chords.are_there:
            self._services.chords.set_size(group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Let a chord have one part more; called by a part, before it returns."""
        chords = self._services.chords
        if not (chords.are_there and chords.add(chord_id, result.id)):
            super().add_to_chord(chord_id, result)  # not to one of Celery's own

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, *args: Any, **kwargs: Any) -> None:
        """Store and announce what a task has returned."""
        mark_outcome(request)
        super().mark_as_done(task_id, result, request, *args, **kwargs)

    def mark_as_failure(
        self, task_id: str, exc: Any, traceback: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """Store and announce what a task has raised."""
        mark_outcome(request)
        super().mark_as_failure(task_id, exc, traceback, request, *args, **kwargs)

    def mark_as_revoked(self, task_id: str, reason: str = "", request: Any = None, *args: Any, **kwargs: Any) -> None:
        """Store and announce that a task will not run."""
        mark_outcome(request)
        super().mark_as_revoked(task_id, reason, request, *args, **kwargs)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a part in. The process that finds the chord complete, and is elected, sends the body."""
        self._services.answered(self._services.chords.returned(request, state, result))

    def chord_error_from_stack(self, callback: Any, exc: BaseException | None = None) -> Any:
        """Let a body fail, with every task that it ends in, and with the chord in whose header it stands.

        Celery forgets the latter, and before 5.6 also the tasks of a group and the end of a chain: they wait for ever.
        """
        ends = list(ends_of(callback))
        if ends and not callback.id:
            callback.options["task_id"] = ends[-1].id
        info = super().chord_error_from_stack(callback, exc)
        for task in ends:
            told = self.get_state(task.id) in states.READY_STATES
            self.mark_as_failure(task.id, exc, request=request_of(task), store_result=not told, call_errbacks=not told)
        return info

    def sweep_chords(self) -> int:
        """End chords that nobody else does, looking at up to 500; return how many it has ended. See :class:`.Sweep`."""
        return self._services.sweep_chords()

    # -- the rest ------------------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Delete what has expired, and end chords that nobody else does.

        Results expire ``result_expires`` after they were done, chords ``result_chord_expires`` after they began. 0 is
        for ever, as is ``None`` for results; chords then expire like results.
        """
        self.sweep_chords()
        self._services.cleanup(self.expires)

    def as_uri(self, include_password: bool = False) -> str:
        """The URL of the database, as ``result_backend`` has it; without what may hold a password, unless asked for."""
        return as_uri(self.settings.url, include_password)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.as_uri()}>"

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        options = self._read.keywords["database_engine_options"]
        given = {"dburi": self.settings.place.given, "expires": self.expires, "engine_options": options}
        return super().__reduce__(args, {**given, **(kwargs or {})})
