"""The engines of a process: each made once, shared, and closed when its last user has gone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, finalize, ref

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from celery_sql_results.boundaries import undone

__all__ = ["Engines"]


class _Opened:
    """The open connections of an engine, to close them when it goes: what goes with it would do so in any order.

    Then they are idle, since who has one has its engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._errors = (engine.dialect.loaded_dbapi.Error, OSError)
        self._connections: dict[int, DBAPIConnection] = {}
        self.begin()
        event.listen(engine, "connect", lambda opened, _: self._connections.update({id(opened): opened}))
        event.listen(engine, "close", lambda closed, _: self._connections.pop(id(closed), None))
        event.listen(engine, "detach", lambda detached, _: self._connections.pop(id(detached), None))

    def begin(self) -> None:
        """In a process of its own: a forked child does not close what its parent goes on using."""
        self._process = os.getpid()
        self._connections.clear()

    def close(self) -> None:
        while self._connections and self._process == os.getpid():
            with suppress(*self._errors):  # it is lost already
                self._connections.popitem()[1].close()


class _Made:
    """An engine while somebody uses it, and the lock under which it is made: so only who wants the same one waits.

    ``origin`` is what it is made from: things that are told apart by their ids must live as long.
    """

    def __init__(self, origin: Any) -> None:
        self.origin = origin
        self.lock = threading.RLock()
        self.engine: Callable[[], Engine | None] = lambda: None
        self.opened: _Opened | None = None

    def begin(self) -> None:
        """In a forked child, where another thread of the parent may have held the lock."""
        self.lock = threading.RLock()


class Engines:
    """The engines of this process by what they were made from. Each step on the dict is one that threads cannot mix.

    Args:
        is_kept: whether an engine goes through a fork as it is.
        is_closed: whether the idle connections of an engine are closed before a fork.
    """

    def __init__(self, is_kept: Callable[[Engine], bool], is_closed: Callable[[Engine], bool]) -> None:
        self._is_kept, self._is_closed = is_kept, is_closed
        self._made: dict[Any, _Made] = {}
        #: All that are alive, also those that were forgotten: whoever has one goes on using it.
        self._alive: WeakKeyDictionary[Engine, _Opened] = WeakKeyDictionary()
        os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork_in_child)

    def get(self, key: Any, origin: Any, create: Callable[[], Engine]) -> Engine:
        """The engine of a key, which whoever asks must hold; ``create`` makes it if there is none."""
        made = self._made.get(key) or self._made.setdefault(key, _Made(origin))
        with made.lock:
            return made.engine() or self._create(key, made, create)

    def _create(self, key: Any, made: _Made, create: Callable[[], Engine]) -> Engine:
        with undone(lambda: self._made.pop(key, None)):
            engine = create()
        made.engine, made.opened = ref(engine), _Opened(engine)
        self._made[key], self._alive[engine] = made, made.opened
        finalize(engine, self._end, key, made.opened).atexit = False
        return engine

    def _end(self, key: Any, opened: _Opened) -> None:
        made = self._made.get(key)
        if made is not None and made.opened is opened:
            self._made.pop(key, None)
        opened.close()

    def forget(self, engine: Engine) -> None:
        """Close an engine; the next who asks for its key gets another."""
        for key, made in list(self._made.items()):
            if made.engine() is engine:
                self._made.pop(key, None)
        engine.dispose()

    def _not_kept(self) -> list[Engine]:
        return [engine for engine in list(self._alive) if not self._is_kept(engine)]

    def _before_fork(self) -> None:
        for engine in self._not_kept():
            if self._is_closed(engine):
                engine.dispose()

    def _after_fork_in_child(self) -> None:
        for made in list(self._made.values()):
            made.begin()
        for opened in list(self._alive.values()):
            opened.begin()
        for engine in self._not_kept():
            engine.dispose(close=False)
