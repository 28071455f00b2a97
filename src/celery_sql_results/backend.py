"""Celery's contract of a result backend, in terms of the modules beside this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any, TypeVar

from celery import states
from celery.backends.base import BaseBackend
from celery.exceptions import BackendGetMetaError, BackendStoreError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import result_from_tuple
from celery.utils.log import get_logger
from celery.utils.time import maybe_timedelta
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from . import retention, retry
from .dialects import DefaultImpl, impl_for
from .encoding import Encoding
from .errors import TaskIdTooLong
from .models import NAME_LENGTH, Models, Task, TaskSet, models_for, utc_now
from .session import SessionManager
from .settings import Settings
from .store import Store

__all__ = ["DatabaseBackend"]

T = TypeVar("T")
logger = get_logger(__name__)


class DatabaseBackend(BaseBackend):
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
        self.expires = self.settings.expires
        self.thread_safe = conf.get("result_backend_thread_safe", True)  # one backend serves all threads of an app
        self.encoding = Encoding(self.serializer, self.accept, self.settings.compression)
        self.session_manager = SessionManager(self.settings.engine_callback)
        self.models: Models = models_for(self.settings.names)
        self.task_cls = self.models.classes[1 if self.settings.extended else 0]
        self.taskset_cls = self.models.classes[2]
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

    @cached_property
    def store(self) -> Store:
        """The rows of this backend, on tables that are ready."""
        engine = self.session_manager.get_engine(
            self.settings.url, short_lived_sessions=self.settings.short_lived_sessions, **self.settings.engine_options
        )
        columns = self.session_manager.prepare_models(engine, self.models)
        return Store(engine, self._impl, self.models, columns, self.settings.extended)

    @cached_property
    def _impl(self) -> DefaultImpl:
        return impl_for(make_url(self.settings.url).get_backend_name())

    def _create_tables(self) -> None:
        """Prepare the tables now. A database that is down keeps nobody from starting: the first use tries again."""
        try:
            self._read("preparing the tables", lambda: self.store)
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
        return self._impl.is_transient(exc)

    def _retry(self, name: str, operation: Callable[[], T], retries: float) -> T:
        policy = self.settings.retry
        return retry.call(
            operation,
            name=name,
            is_transient=self.exception_safe_to_retry,
            retries=retries,
            first_pause=policy.first_pause,
            longest_pause=policy.longest_pause,
        )

    def _write(self, name: str, operation: Callable[[], T]) -> T:
        return self._retry(name, operation, self.settings.retry.write_retries)

    def _read(self, name: str, operation: Callable[[], T]) -> T:
        return self._retry(name, operation, self.settings.retry.read_retries)

    # -- tasks ---------------------------------------------------------------------------------------------------

    def on_task_call(self, producer: Any, task_id: str) -> dict[str, Any]:
        """Refuse, when a task is published, an id under which its result could not be stored.

        Raises:
            TaskIdTooLong: the id does not fit its column.
        """
        _fitting("task", task_id)
        return {}

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
        try:
            self._write(f"storing {state} of task {task_id}", lambda: self.store.put(row))
        except SQLAlchemyError as error:
            if not self.exception_safe_to_retry(error):
                raise
            raise BackendStoreError("the result database cannot be reached", task_id=task_id, state=state) from error
        return result

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
        meta: dict[str, Any] = self.meta_from_decoded(self.encoding.to_meta(row))
        return meta

    def task_result_exists(self, task_id: str) -> bool:
        """Whether the task has a row, in whatever state."""
        return self._read(f"looking for task {task_id}", lambda: self.store.exists(task_id))

    def _forget(self, task_id: str) -> None:
        self._write(f"forgetting task {task_id}", lambda: self.store.forget(task_id))

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(task id, meta)`` of each task as it is found in one of ``READY_STATES``: one query per ``interval``.

        Raises:
            celery.exceptions.TimeoutError: ``timeout`` seconds have passed and some are not ready; 0 looks once.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting, iteration = set(task_ids), 0
        while waiting:
            for meta in self._ready(waiting, READY_STATES):
                waiting.discard(meta["task_id"])
                if on_message is not None:
                    on_message(meta)
                yield meta["task_id"], meta
            iteration += 1
            if not waiting or iteration == max_iterations:
                return
            if on_interval is not None:
                on_interval()
            _sleep(interval, deadline)

    def _ready(self, task_ids: set[str], ready_states: frozenset[str]) -> list[dict[str, Any]]:
        """The metas of those that are ready, from the cache or in one query."""
        cached = [self._cache[task_id] for task_id in task_ids if self.is_cached(task_id)]
        unknown = task_ids.difference(meta["task_id"] for meta in cached)
        rows = self._read(f"reading {len(unknown)} tasks", lambda: list(self.store.fetch_many(unknown)))
        fetched = [self._meta(row) for row in rows if row["status"] in ready_states]
        for meta in fetched:
            if meta["status"] == states.SUCCESS:
                self._cache[meta["task_id"]] = meta
        return [meta for meta in cached if meta["status"] in ready_states] + fetched

    # -- groups --------------------------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        """Store the members of a group; saving it again replaces them."""
        row = {
            "taskset_id": _fitting("group", group_id),
            "result": self.encoding.dumps(result.as_tuple()),
            "date_done": utc_now(),
            "content_type": self.encoding.content_type,
        }
        self._write(f"saving group {group_id}", lambda: self.store.put_group(row))
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        row = self._read(f"reading group {group_id}", lambda: self.store.fetch_group(group_id))
        if row is None:
            return None
        members = self.encoding.loads(row["result"], row.get("content_type"))
        return {
            "taskset_id": row["taskset_id"],
            "result": members and result_from_tuple(members, self.app),
            "date_done": row["date_done"],
        }

    def _delete_group(self, group_id: str) -> None:
        self._write(f"deleting group {group_id}", lambda: self.store.forget_group(group_id))

    # -- the rest ------------------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Delete the task and group results that were done longer than ``result_expires`` ago; 0 and None keep all."""
        if self.expires is None:
            return
        clean = partial(retention.cleanup, self.store.engine, self._impl, self.models, self.expires)
        deleted = self._write("cleaning up", clean)
        logger.info("deleted %d expired results", deleted)

    def as_uri(self, include_password: bool = False) -> str:
        """The URL of the database. The password, and the query that may hold one, are only shown if asked for."""
        url = make_url(self.settings.url)
        if not include_password:
            url = url.set(query={}, password="**" if url.password is not None else None)
        return url.render_as_string(hide_password=False)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.as_uri()}>"

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        given = {"dburi": self.settings.url, "expires": self.expires, "engine_options": self.engine_options}
        return super().__reduce__(args, {**given, **(kwargs or {})})


def _fitting(kind: str, id_: str) -> str:
    if len(id_) > NAME_LENGTH:
        raise TaskIdTooLong(kind, id_, NAME_LENGTH)
    return id_


def _pending(task_id: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("result", "traceback", "children", "date_done"))
    return {"task_id": task_id, "status": states.PENDING, **nothing}


def _sleep(interval: float | None, deadline: float | None) -> None:
    pause = 0.5 if interval is None else interval
    if deadline is not None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise CeleryTimeoutError("The operation timed out.")
        pause = min(pause, left)
    time.sleep(pause)
