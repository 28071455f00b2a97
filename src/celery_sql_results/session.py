"""Engines and sessions: one pooled engine per URL and options, for the whole process.

All threads and all backends of a process share it, and it ends with the last of them. A forked child leaves its
parent's connections alone and opens its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import event, pool
from sqlalchemy.engine import URL, Dialect, Engine, make_url
from sqlalchemy.orm import Session, sessionmaker

from .boundaries import undone
from .connections.engines import Engines
from .connections.pool import IDLE_TIMEOUT
from .dialects import DefaultImpl, impl_for, pool_options
from .models import Models, models_for
from .options import layered, made
from .schema import Prepared, prepare_models
from .urls import checked_url

__all__ = ["IDLE_TIMEOUT", "EngineCallback", "SessionManager", "session_cleanup"]

EngineCallback = Callable[[Engine], object]
#: Names who opens a connection.
Client = Callable[[], str]

#: The option that no user may set for the statements of a backend.
LEVEL = "isolation_level"

#: Options that mean nothing to a pool that keeps no connection.
_POOL_OPTIONS = ("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo", "pool_recycle", "pool_pre_ping")
#: Seconds for which SQLAlchemy lets somebody wait for a connection, unless ``pool_timeout`` says otherwise.
POOL_TIMEOUT = 30.0


@contextmanager
def session_cleanup(session: Session) -> Iterator[None]:
    """Roll ``session`` back if the block raises, and close it in any case."""
    try:
        with undone(session.rollback):
            yield
    finally:
        session.close()


def _is_one_connection(url: URL) -> bool:
    return impl_for(url.get_backend_name()).is_one_connection(url)


_engines = Engines(
    is_kept=lambda engine: _is_one_connection(engine.url),
    is_closed=lambda engine: impl_for(engine.dialect.name).closes_before_fork,
)


def _frozen(value: Any) -> Any:
    """A hashable stand-in for options: equal for equal ones; an object that cannot be hashed stands for itself."""
    if isinstance(value, Mapping):
        return frozenset((key, _frozen(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


def _create(
    url: str,
    options: dict[str, Any],
    callback: EngineCallback | None,
    kept: float | None,
    client: Client | None,
    origin: str,
) -> Engine:
    """Make an engine on which each statement commits itself. ``kept``: see :func:`_with_pool`."""
    parsed = make_url(url)
    impl = impl_for(parsed.get_backend_name())
    needed = impl.engine_options(parsed)
    connect_args = {**needed.pop("connect_args", {}), **options.pop("connect_args", {})}
    # A level of isolation stands beside ours, not over it: each statement of ours commits itself, or its block does.
    of_execution = {name: value for name, value in options.pop("execution_options", {}).items() if name != LEVEL}
    options = {"hide_parameters": True, **needed, **options, "connect_args": connect_args}
    options |= {"execution_options": of_execution} if of_execution else {}
    if impl.isolation_level:
        options.update(isolation_level=impl.isolation_level, skip_autocommit_rollback=True)
    is_shared, timeout = impl.is_one_connection(parsed), options.get("pool_timeout", POOL_TIMEOUT)
    checked_url(origin, url, "module" not in options)
    engine = made(url, _with_pool(options, kept, is_shared), origin)
    impl.leave_demoted(engine)
    impl.qualify(engine)
    if client is not None:
        _introduce(engine, impl, client)
    event.listen(engine, "connect", lambda connection, _record: impl.on_connect(connection))
    if callback is not None:
        callback(engine)
    dialect = engine.dialect  # not the engine, which would never end
    event.listen(engine, "connect", lambda connection, _record: impl.settle(connection, dialect))
    if is_shared and isinstance(engine.pool, pool.NullPool):
        impl.share(engine, timeout)
    _commit_each_statement(engine, impl)
    return engine


def _introduce(engine: Engine, impl: DefaultImpl, client: Client) -> None:
    """Let each connection have the name that ``client`` gives when it is opened, unless the user has named it."""

    def introduce(dialect: Dialect, _record: object, _args: object, arguments: dict[str, Any]) -> None:
        arguments.update(impl.introduction(dialect.driver, client(), arguments))

    event.listen(engine, "do_connect", introduce)


def _with_pool(options: dict[str, Any], kept: float | None, is_shared: bool) -> dict[str, Any]:
    """The options of an engine with those of its pool: the user's, ours that pings, or none that keeps connections.

    An idle connection is ``kept`` for so many seconds, 0 for ever, ``None`` not at all. What was used last is used
    next, so that those for which there is no need any more become idle.
    """
    has_own = bool({"poolclass", "pool"} & options.keys())
    if is_shared and not has_own:
        kept_by_pool = "creator" in options  # which is asked for each connection, and might give another database
        return {**_without_pool(options), "poolclass": pool.StaticPool if kept_by_pool else pool.NullPool}
    if kept is None:
        return {**_without_pool(options), "poolclass": pool.NullPool}
    if options["pool_pre_ping"] and not has_own:
        return {"pool_use_lifo": True, **options, **pool_options(kept)}
    return options


def _without_pool(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _POOL_OPTIONS}


def _commit_each_statement(engine: Engine, impl: DefaultImpl) -> None:
    """Whatever else a callback has said."""
    level = engine.get_execution_options().get("isolation_level")
    if impl.isolation_level and level not in {None, impl.isolation_level}:  # another would undo each statement
        engine.update_execution_options(isolation_level=impl.isolation_level)


class SessionManager:
    """Gives out engines and sessions.

    Args:
        engine_callback: called with each new engine once, before its first use: the place for event listeners, such as
            one on ``do_connect`` that fetches a password.
    """

    def __init__(self, engine_callback: EngineCallback | None = None) -> None:
        self.engine_callback = engine_callback
        self._given: set[Engine] = set()  # what was given out lives as long as this

    def get_engine(
        self,
        dburi: str,
        *,
        short_lived_sessions: bool = False,
        idle_timeout: float = IDLE_TIMEOUT,
        client: Client | None = None,
        origin: str = "dburi",
        **options: Any,
    ) -> Engine:
        """Return the engine of this process for a URL and options of ``create_engine``.

        It ends, and closes its connections, with the last manager that gave it out and the last who has it. What nobody
        has used for ``idle_timeout`` seconds is closed before, unless that is 0. Where the driver can, the server is
        told who has opened a connection: what ``client`` says of the first who asked for the engine. ``origin`` is what
        an error calls the URL.

        Each statement commits itself on it, in one round trip. For transactions see :meth:`create_session`.

        Raises:
            SettingError: the URL or the options cannot work.
        """
        options = layered(options)
        options.pop("isolation_level", None)
        kept = None if short_lived_sessions else idle_timeout
        if _is_one_connection(make_url(dburi)):
            kept = 0
        key = (dburi, _frozen(options), self.engine_callback, kept)
        create = partial(_create, dburi, dict(options), self.engine_callback, kept, client, origin)
        engine = _engines.get(key, options, create)
        self._given.add(engine)
        return engine

    def create_session(
        self, dburi: str, short_lived_sessions: bool = False, **options: Any
    ) -> tuple[Engine, sessionmaker[Session]]:
        """Return the engine and a maker of sessions that are transactions.

        ``short_lived_sessions`` closes each connection when its session ends and holds none while idle.
        """
        engine = self.get_engine(dburi, short_lived_sessions=short_lived_sessions, **options)
        level = options.get("isolation_level") or impl_for(engine.dialect.name).session_isolation_level
        transactional = engine.execution_options(isolation_level=level) if level else engine
        return engine, sessionmaker(bind=transactional)

    def session_factory(self, dburi: str, **options: Any) -> Session:
        """Return a session on tables that are ready.

        Raises:
            SchemaError: the tables are not there and may not be created.
        """
        engine, maker = self.create_session(dburi, **options)
        self.prepare_models(engine)
        return maker()

    def prepare_models(self, engine: Engine, models: Models | None = None) -> Prepared:
        """Create the tables, or add the columns that they lack, unless that was done. See :mod:`.schema`."""
        return prepare_models(engine, models or models_for())

    def invalidate(self, dburi: str, **options: Any) -> None:
        """Close the engine of a URL and options, as :meth:`get_engine` gave it; the next use makes a new one."""
        engine = self.get_engine(dburi, **options)
        self._given.discard(engine)
        _engines.forget(engine)
