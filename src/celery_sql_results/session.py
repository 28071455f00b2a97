"""Engines and sessions: one pooled engine per URL and options, for the whole process.

All threads and all backends of a process share it. A forked child leaves its parent's connections alone and opens its
own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine, event, exc, pool
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.orm import Session, sessionmaker

from .dialects import PingingPool, impl_for
from .errors import SettingError
from .models import Models, models_for
from .schema import Columns, prepare_models

__all__ = ["ENGINE_OPTIONS", "EngineCallback", "SessionManager", "session_cleanup"]

EngineCallback = Callable[[Engine], object]

#: What a connection pool does unless ``database_engine_options`` says otherwise.
ENGINE_OPTIONS: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": 3600}

#: Options that mean nothing to a pool that keeps no connection.
_POOL_OPTIONS = ("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo", "pool_recycle", "pool_pre_ping")


@contextmanager
def session_cleanup(session: Session) -> Iterator[None]:
    """Roll ``session`` back if the block raises, and close it in any case."""
    try:
        yield
    except BaseException:  # whatever the block raises goes on
        session.rollback()
        raise
    finally:
        session.close()


class _Engines:
    """The engines of this process by what they were made from, which is kept with them so that ids stay unique."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[Any, tuple[Engine, Any]] = {}
        os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork_in_child)

    def get(self, url: str, options: Mapping[str, Any], callback: EngineCallback | None, pooled: bool) -> Engine:
        key = (url, _frozen(options), callback, pooled)
        with self._lock:
            if key not in self._engines:
                self._engines[key] = (_create(url, dict(options), callback, pooled), options)
            return self._engines[key][0]

    def forget(self, engine: Engine) -> None:
        with self._lock:
            self._engines = {key: entry for key, entry in self._engines.items() if entry[0] is not engine}
        engine.dispose()

    def _before_fork(self) -> None:
        for engine, _options in list(self._engines.values()):
            if impl_for(engine.dialect.name).closes_before_fork:
                engine.dispose()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held the old one
        for engine, _options in self._engines.values():
            engine.dispose(close=False)


_engines = _Engines()


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


def _create(url: str, options: dict[str, Any], callback: EngineCallback | None, pooled: bool) -> Engine:
    """Make an engine on which each statement commits itself."""
    impl = impl_for(make_url(url).get_backend_name())
    needed = impl.engine_options(make_url(url))
    connect_args = {**needed.pop("connect_args", {}), **options.pop("connect_args", {})}
    options = {"hide_parameters": True, **needed, **options, "connect_args": connect_args}
    if impl.isolation_level:
        options.update(isolation_level=impl.isolation_level, skip_autocommit_rollback=True)
    if not pooled:
        options = {name: value for name, value in options.items() if name not in _POOL_OPTIONS}
        options["poolclass"] = pool.NullPool
    elif options["pool_pre_ping"] and not {"poolclass", "pool"} & options.keys():
        options = {**options, "poolclass": PingingPool, "pool_pre_ping": False}
    engine = _create_engine(url, options)
    event.listen(engine, "connect", lambda connection, _record: impl.on_connect(connection))
    if callback is not None:
        callback(engine)
    level = engine.get_execution_options().get("isolation_level")
    if impl.isolation_level and level not in {None, impl.isolation_level}:  # another would undo each statement
        engine.update_execution_options(isolation_level=impl.isolation_level)
    return engine


def _create_engine(url: str, options: dict[str, Any]) -> Engine:
    try:
        return create_engine(url, **options)
    except (TypeError, exc.ArgumentError) as error:
        if isinstance(error, exc.NoSuchModuleError):
            needed = "a URL of a database that SQLAlchemy or an installed dialect of it knows"
            raise SettingError("database_url", make_url(url).drivername, needed) from error
        raise SettingError("database_engine_options", sorted(options), f"options of create_engine ({error})") from error
    except ModuleNotFoundError as error:
        needed = f"a URL whose driver is installed: {error.name} is not (pip install {error.name})"
        raise SettingError("database_url", make_url(url).drivername, needed) from error


class SessionManager:
    """Gives out engines and sessions.

    Args:
        engine_callback: called with each new engine once, before its first use: the place for event listeners, such as
            one on ``do_connect`` that fetches a password.
    """

    def __init__(self, engine_callback: EngineCallback | None = None) -> None:
        self.engine_callback = engine_callback

    def get_engine(self, dburi: str, *, short_lived_sessions: bool = False, **options: Any) -> Engine:
        """Return the engine of this process for a URL and options of ``create_engine``.

        Each statement commits itself on it, in one round trip. For transactions see :meth:`create_session`.

        Raises:
            SettingError: the URL or the options cannot work.
        """
        options = {**ENGINE_OPTIONS, **options}
        options.pop("isolation_level", None)
        return _engines.get(dburi, options, self.engine_callback, pooled=not short_lived_sessions)

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

    def prepare_models(self, engine: Engine, models: Models | None = None) -> Columns:
        """Create the tables, or add the columns that they lack, unless that was done. See :mod:`.schema`."""
        return prepare_models(engine, models or models_for())

    def invalidate(self, dburi: str, **options: Any) -> None:
        """Close the engine of a URL and options, as :meth:`get_engine` gave it; the next use makes a new one."""
        _engines.forget(self.get_engine(dburi, **options))
