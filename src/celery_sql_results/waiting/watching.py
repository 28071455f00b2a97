"""``then``: results are fulfilled as soon as they are ready, though nobody waits, for as long as somebody has them."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any
from weakref import WeakSet, ref

from celery.exceptions import SoftTimeLimitExceeded

from celery_sql_results.boundaries import caught, undone
from celery_sql_results.foreign import escaping
from celery_sql_results.ids import asked_id
from celery_sql_results.writing import Retries

from .share import Share
from .subscription import Row, Watch

__all__ = ["NOBODYS", "Watching"]

logger = escaping(logging.getLogger(__name__))

#: What is waited for in place of an id that no row can have: no task has this one.
NOBODYS = ""
#: The attribute of a result that says how it is watched.
WATCHED = "_celery_sql_results_watched"


class _Watched:
    """Some results that are watched together. They are not kept alive: a watch ends with the last of them."""

    def __init__(self, results: Iterable[Any]) -> None:
        self._results: dict[str, list[ref[Any]]] = {}
        self._wanted: set[int] = set()
        self.watch: Watch | None = None
        for result in results:
            self._results.setdefault(asked_id(result.id) or NOBODYS, []).append(ref(result))
            self._wanted.add(id(result))
            setattr(result, WATCHED, self)

    @property
    def task_ids(self) -> Collection[str]:
        return self._results.keys()

    def of(self, task_id: str) -> list[Any]:
        found = [reference() for reference in self._results[task_id]]
        return [result for result in found if result is not None and id(result) in self._wanted]

    def is_wanted(self) -> bool:
        return bool(self._wanted)

    def drop(self, result: Any) -> None:
        """Takes no lock: it is called as results end."""
        self._wanted.discard(id(result))
        if not self._wanted:
            self.end()

    def end(self) -> None:
        self._wanted.clear()
        if self.watch is not None and self.watch.looker is not None:
            self.watch.looker.check(self.watch)


class Watching:
    """The results of one backend that are watched.

    Args:
        share: what looks for them.
        retries: repeats what passes.
        meta_of: what Celery calls the meta of a row.
    """

    def __init__(self, share: Share, retries: Retries, meta_of: Callable[[Row], dict[str, Any]]) -> None:
        self._share, self._retries, self._meta_of = share, retries, meta_of
        self._all: WeakSet[_Watched] = WeakSet()

    def begin(self, results: Iterable[Any]) -> None:
        """Fulfil results as soon as they are ready, in the thread that finds them."""
        unready = [result for result in results if not result._cache and getattr(result, WATCHED, None) is None]
        if not unready:
            return
        looker = self._retries.read("beginning to wait", lambda: self._share.looker)
        watched = _Watched(unready)
        watch = watched.watch = Watch(watched.task_ids, partial(self._fulfil, watched), watched.is_wanted)
        watch.looker = looker
        self._all.add(watched)
        with undone(lambda: self._share.end(watch)):  # nobody will end what did not begin
            looker.begin(watch)

    def end(self, result: Any) -> None:
        """Call nobody back. Takes no lock: it is called as results end."""
        watched: _Watched | None = vars(result).pop(WATCHED, None)
        if watched is not None:
            watched.drop(result)

    def close(self) -> None:
        """Call nobody back any more."""
        for watched in list(self._all):
            watched.end()

    def _fulfil(self, watched: _Watched, row: Row) -> None:
        looks = watched.watch is not None and watched.watch.looker is not None
        is_ours = looks and threading.current_thread() in watched.watch.looker.threads  # type: ignore[union-attr]
        for result in watched.of(row["task_id"]):
            with caught(BaseException if is_ours else SoftTimeLimitExceeded) as failure:  # the thread serves all waits
                result._maybe_set_cache(self._meta_of(row))
            if isinstance(failure.error, KeyboardInterrupt):
                _interrupt()
            elif failure.error is not None:
                logger.error("a callback of result %s failed", result.id, exc_info=failure.error)


def _interrupt() -> None:
    """Do to the main thread what Ctrl-C does. A real signal: it would not wake up for anything else."""
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)
