"""Celery's contract of a result backend, in terms of the modules beside this one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeVar

from celery import states
from celery.backends.base import BaseBackend
from celery.exceptions import BackendGetMetaError, BackendStoreError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import GroupResult, result_from_tuple
from celery.utils.log import get_logger
from celery.utils.time import maybe_timedelta
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.util import memoized_property

from .chords.chords import ChordMixin, is_counted
from .dialects import DefaultImpl, impl_for
from .errors import TaskIdTooLong
from .models import NAME_LENGTH, Models, Task, TaskSet, models_for, utc_now
from .payload.encoding import tree
from .rows import cleanup as retention
from .rows.chords import ChordRows
from .rows.tasks import Store
from .session import SessionManager
from .settings import Policy, Settings
from .waiting.choice import notifier_for
from .waiting.looker import Consumer
from .waiting.results import install
from .waiting.waits import WaitingMixin
from .worker import upkeep  # noqa: F401 - it listens to the signals of a worker
from .writing import retry
from .writing import stand_ins as content
from .writing.keep import SpoolMixin
from .writing.spool.entry import GROUP, TASK, Entry
from .writing.stand_ins import ContentMixin

__all__ = ["DatabaseBackend"]

T = TypeVar("T")
logger = get_logger(__name__)


class DatabaseBackend(WaitingMixin, SpoolMixin, ContentMixin, ChordMixin, BaseBackend):
    """Task and group results in a SQL database.

    Args:
        dburi: URL of the database, if ``url`` is not given.
        engine_options: options of ``create_engine``, on top of ``database_engine_options``.
        url: URL of the database; what Celery takes from ``result_backend``.
        kwargs: ``short_lived_sessions`` and ``engine_callback`` override their settings; ``app``, ``serializer``,
            ``accept``, ``expires`` and ``max_cached_results`` are those of every Celery backend.

    Raises:
        SettingError: a setting cannot work.
        SchemaError: the tables are not there and may not be created.
    """

    task_cls: type[Any] = Task
    taskset_cls: type[Any] = TaskSet
    supports_native_join = True
    supports_result_compression = True

    def __init__(
        self,
        dburi: str | None = None,
        engine_options: dict[str, Any] | None = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        conf = kwargs["app"].conf
        self.settings = Settings.read(
            conf,
            database_url=url or dburi,
            database_short_lived_sessions=kwargs.pop("short_lived_sessions", None),
            database_engine_callback=kwargs.pop("engine_callback", None),
            database_engine_options=engine_options,
            result_expires=kwargs.get("expires"),
            result_serializer=kwargs.get("serializer"),
        )
        super().__init__(expires_type=maybe_timedelta, url=self.settings.url, **kwargs)
        self.always_retry = False  # ours are enough: Celery's would multiply them
        self.expires = self.settings.expires
        self.thread_safe = conf.get("result_backend_thread_safe", True)  # one backend serves all threads of an app
        self.encoding = self._make_encoding()
        self.session_manager = SessionManager(self.settings.engine_callback)
        self.models: Models = models_for(self.settings.names)
        self.task_cls = self.models.classes[1 if self.settings.extended else 0]
        self.taskset_cls = self.models.classes[2]
        install(self.app)
        self._open_spool()
        if self.settings.create_tables_at_setup:
            self._create_tables()

    # -- the tables ----------------------------------------------------------------------------------------------

    @property
    def extended_result(self) -> bool:
        """Whether ``result_extended`` is on."""
        return self.settings.extended

    @property
    def engine_options(self) -> dict[str, Any]:
        """The options of the engine, defaults included."""
        return dict(self.settings.engine_options)

    @property
    def short_lived_sessions(self) -> bool:
        """Whether no connection is held while idle."""
        return self.settings.short_lived_sessions

    @memoized_property
    def store(self) -> Store:
        """The rows of this backend, on tables that are ready."""
        columns = self.session_manager.prepare_models(self._engine, self.models)
        self._waiting = bool(self.spooled)  # what others have left is stored after the next operation
        return Store(self._engine, self._impl, self.models, columns, self.settings.extended, self.settings.listen)

    @property
    def _engine(self) -> Engine:
        settings = self.settings
        options = {**settings.engine_options, "short_lived_sessions": settings.short_lived_sessions}
        return self.session_manager.get_engine(settings.url, **options)

    @memoized_property
    def _impl(self) -> DefaultImpl:
        return impl_for(make_url(self.settings.url).get_backend_name())

    def _create_tables(self) -> None:
        """Prepare the tables now. A database that is down keeps nobody from starting: the first use tries again."""
        try:
            self._retry("preparing the tables", lambda: self.store, self.settings.retry.reads)
        except SQLAlchemyError as error:
            if not self.exception_safe_to_retry(error):
                raise
            logger.warning("the result database %s cannot be reached yet, first use will try again", self.as_uri())

    def ResultSession(self, session_manager: SessionManager | None = None) -> Session:
        """A session of SQLAlchemy on tables that are ready. Use it with ``session_cleanup``."""
        manager = session_manager or self.session_manager
        options = {**self.settings.engine_options, "short_lived_sessions": self.settings.short_lived_sessions}
        engine, maker = manager.create_session(self.settings.url, **options)
        manager.prepare_models(engine, self.models)
        return maker()

    # -- errors and retries --------------------------------------------------------------------------------------

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whether the same operation may succeed later."""
        return self._impl.is_transient(exc) and self._refusal(exc) is None

    def _refusal(self, exc: BaseException) -> str | None:
        """Why the database can never store what it was given; ``None`` if that is not what failed."""
        return self._impl.refusal(exc, self._engine)

    def _retry(
        self,
        name: str,
        operation: Callable[[], T],
        policy: Policy,
        gives_up: Callable[[], bool] = retry.never,
        failed: retry.Failed | None = None,
    ) -> T:
        is_transient = self.exception_safe_to_retry
        return retry.call(
            operation, name=name, is_transient=is_transient, policy=policy, gives_up=gives_up, failed=failed
        )

    def _read(self, name: str, operation: Callable[[], T]) -> T:
        found = self._retry(name, operation, self.settings.retry.reads)
        if self._waiting:
            self._catch_up()
        return found

    @property
    def upkeep_tasks(self) -> dict[str, Callable[[], object]]:
        """What a worker does now and then, by name."""
        return {"emptying the spool": self.replay, "looking for stuck chords": self.sweep_chords}

    # -- tasks ---------------------------------------------------------------------------------------------------

    def on_task_call(self, producer: Any, task_id: str) -> dict[str, Any]:
        """Refuse, when a task is published, an id under which its result could not be stored.

        Raises:
            TaskIdTooLong: the id does not fit its column.
        """
        _fitting("task", task_id)
        return {}

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a state and a result, and return the result as it is stored; see :meth:`_store_result`.

        Without the loop that Celery has around it, which :attr:`always_retry` turns off here.
        """
        result = self.encode_result(result, state)
        self._store_result(task_id, result, state, traceback, request=request, **kwargs)
        return result

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a state and a result, unless what is stored may not be replaced.

        Raises:
            TaskIdTooLong: the id does not fit its column.
            BackendStoreError: the database could not be reached for as long as the settings say.
        """
        row = self.encoding.to_row(
            _fitting("task", task_id),
            result,
            state,
            traceback,
            self.current_task_children(request),
            request,
            self.settings.extended,
        )
        began = time.monotonic()
        try:  # nearly always that is all: what helps against errors takes time to make ready, and waits for one
            part = self._part_with(request, row)
            self._put(row, part)
            if self._waiting:
                self._catch_up()
            if part is not None:
                is_counted(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again, or helped
            self._insist(request, row, retry.Failed(error, began))
        return result

    def _insist(self, request: Any, row: Mapping[str, Any], failed: retry.Failed) -> None:
        """Store a row whose first attempt has failed: again, or without what is refused, or in the spool."""
        once = iter([failed])  # what stands for a row that is refused begins anew
        try:
            content.put(row, lambda row: self._put_row(request, row, next(once, None)), self._refusal, self._payload)
        except SQLAlchemyError as error:
            if not self.exception_safe_to_retry(error):
                raise
            ids = {"task_id": row["task_id"], "state": row["status"]}
            raise BackendStoreError("the result database cannot be reached", **ids) from error

    def _put_row(self, request: Any, row: Mapping[str, Any], failed: retry.Failed | None) -> None:
        part = self._part_with(request, row)
        name = f"storing {row['status']} of task {row['task_id']}"
        stored = self._write_or_keep(name, lambda: Entry(TASK, row, part), lambda: self._put(row, part), failed)
        if part is not None:
            is_counted(request, kept=not stored)

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        """The meta of a task; that of a pending one if it has no row.

        Raises:
            kombu.exceptions.ContentDisallowed: the row holds content that is not accepted.
            BackendGetMetaError: the database could not be reached for as long as the settings say.
        """
        try:
            row = self._read(f"reading task {task_id}", lambda: self.store.fetch(task_id))
        except SQLAlchemyError as error:
            if not self.exception_safe_to_retry(error):
                raise
            raise BackendGetMetaError("the result database cannot be reached", task_id=task_id) from error
        return self._meta(row) if row else _pending(task_id)

    def _meta(self, row: Any) -> dict[str, Any]:
        return self.meta_from_decoded(self.encoding.to_meta(row))

    def task_result_exists(self, task_id: str) -> bool:
        """Whether the task has a row, in whatever state."""
        return self._read(f"looking for task {task_id}", lambda: self.store.exists(task_id))

    def _forget(self, task_id: str) -> None:
        self._write(f"forgetting task {task_id}", lambda: self.store.forget(task_id))

    @memoized_property
    def chords(self) -> ChordRows | None:
        """The chords of this backend; ``None`` without their tables."""
        if not self.store.has(self.models.chords):
            return None
        return ChordRows(self.store.engine, self._impl, self.models)

    def states_of(self, task_ids: Collection[str]) -> dict[str, str]:
        """The states of those of ``task_ids`` that have a row, in one query that reads no results."""
        return self._read(f"reading {len(task_ids)} states", lambda: self.store.fetch_states(task_ids))

    @property
    def consumer(self) -> Consumer:
        """What is awaited through this backend. Threads that ask for it at the same time get the same."""
        made: Consumer | None = self.__dict__.get("_consumer")
        return made or self.__dict__.setdefault("_consumer", self._make_consumer())

    def _consumer_by(self, deadline: float | None) -> Consumer:
        window = math.inf if deadline is None else deadline - time.monotonic()
        policy = self.settings.retry.reads._replace(retries=math.inf, window=window)
        try:
            return self._retry("beginning to wait", lambda: self.consumer, policy)
        except SQLAlchemyError as error:
            if not self.exception_safe_to_retry(error):
                raise
            raise CeleryTimeoutError("The result database could not be reached in time.") from error

    def _make_consumer(self) -> Consumer:
        store, settings = self.store, self.settings
        url = (settings.listen_url if store.notifies else None) or settings.url
        engine = partial(self.session_manager.get_engine, url, short_lived_sessions=True, **settings.engine_options)
        bounds = settings.poll_min_interval, settings.poll_max_interval
        return Consumer(notifier_for(store, engine), self.exception_safe_to_retry, *bounds)

    # -- groups --------------------------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        """Store the members of a group; saving it again replaces them."""
        row = {
            "taskset_id": _fitting("group", group_id),
            "result": self.encoding.dumps(result.as_tuple()),
            "date_done": utc_now(),
            "content_type": self.encoding.content_type,
        }
        name = f"saving group {group_id}"
        self._write_or_keep(name, lambda: Entry(GROUP, row), lambda: self.store.put_group(row))
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        row = self._read(f"reading group {group_id}", lambda: self.store.fetch_group(group_id))
        if row is None:
            return None
        members = self.encoding.loads(row["result"], row.get("content_type"))
        return {
            "taskset_id": row["taskset_id"],
            "result": members and result_from_tuple(tree(_as_tuple(members)), self.app),
            "date_done": row["date_done"],
        }

    def _delete_group(self, group_id: str) -> None:
        self._write(f"deleting group {group_id}", lambda: self.store.forget_group(group_id))

    # -- the rest ------------------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Delete what has expired, and send the bodies of chords whose elected process has died.

        Task and group results expire ``result_expires`` after they were done, chords ``result_chord_expires`` after
        they began; 0 keeps them for ever, and so does ``None`` for results, while chords then expire like results.
        """
        self.sweep_chords()
        deleted = 0
        if self.expires is not None:
            deleted += self._delete(retention.delete_results, self.expires)
        if self.settings.chord_expires is not None and self.chords is not None:
            deleted += self._delete(retention.delete_chords, self.settings.chord_expires)
        if self.store.notifies:
            self._delete(retention.delete_waiters)
        logger.info("deleted %d expired results and chords", deleted)

    def _delete(self, delete: Callable[..., int], *args: Any) -> int:
        return self._write("cleaning up", lambda: delete(self.store.engine, self._impl, self.models, *args))

    def as_uri(self, include_password: bool = False) -> str:
        """The URL of the database. The password, and the query that may hold one, are only shown if asked for."""
        url = make_url(self.settings.url)
        if not include_password:
            url = url.set(query={})
        return url.render_as_string(hide_password=not include_password)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.as_uri()}>"

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        given = {"dburi": self.settings.url, "expires": self.expires, "engine_options": self.engine_options}
        return super().__reduce__(args, {**given, **(kwargs or {})})


def _fitting(kind: str, id_: str) -> str:
    if len(id_) > NAME_LENGTH:
        raise TaskIdTooLong(kind, id_, NAME_LENGTH)
    return id_


def _as_tuple(members: Any) -> Any:
    """Of a group that an older Celery has pickled, bound to the backend that it was saved in."""
    return members.as_tuple() if isinstance(members, GroupResult) else members


def _pending(task_id: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("result", "traceback", "children", "date_done"))
    return {"task_id": task_id, "status": states.PENDING, **nothing}
