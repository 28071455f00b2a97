"""The best way to wait that a database has; one for all in this process who wait on the same tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from functools import partial
from weakref import WeakValueDictionary

from sqlalchemy.engine import Engine

from celery_sql_results.rows import Rows
from celery_sql_results.writing import Judge, Outage

from .asking import Asking
from .listening import ListenNotifier
from .looker import Looker
from .notifier import MakeNotifier
from .polling import ChangeNotifier

__all__ = ["looker_for"]

#: Those that somebody has, by what makes them equal.
_lookers: WeakValueDictionary[Hashable, Looker] = WeakValueDictionary()


def looker_for(
    rows: Rows,
    engine: Callable[[], Engine],
    bounds: tuple[float, float],
    idle_timeout: float,
    outage: Outage,
    *kind: Hashable,
) -> Looker:
    """What looks for the tasks of some rows in this process, for all who ask for the same.

    Args:
        rows: the rows of a backend.
        engine: gives an engine without a pool: what is held while somebody waits must not be missing elsewhere.
        bounds: the shortest and the longest pause between two looks, in seconds.
        idle_timeout: seconds for which threads and connections stay when nobody waits, within bounds; 0 is the longest.
        outage: is told of looks that fail, and of those that succeed afterwards.
        kind: in what else the rows may differ from those of others.
    """
    tasks = rows.tasks
    needs_another = rows.waiters is not None or tasks.impl.counts_changes(tasks.engine)
    listening = engine() if needs_another else tasks.engine
    key = (tasks.engine, listening, tasks.models.task, rows.waiters is None, bounds, idle_timeout, kind)
    found = _lookers.get(key)
    if found is None:
        asking = Asking(tasks, rows.waiters if tasks.impl.can_listen(listening) else None)
        passes = Judge(tasks.impl, lambda: tasks.engine).passes  # which knows no backend, as it outlives each
        notifier = _notifier(rows, listening, asking)
        found = _lookers.setdefault(key, Looker(asking, notifier, passes, *bounds, idle_timeout, outage))
    return found


def _notifier(rows: Rows, listening: Engine, asking: Asking) -> MakeNotifier | None:
    impl = rows.tasks.impl
    if asking.waiters is not None:
        return partial(ListenNotifier, impl.listener(listening), asking.waiters)
    if not impl.counts_changes(rows.tasks.engine):
        return None
    return lambda ears, _channel: ChangeNotifier(partial(impl.change_counter, listening), asking.in_use, ears)


def _each(do: Callable[[Looker], None]) -> Callable[[], None]:
    def do_it() -> None:
        for reference in _lookers.valuerefs():
            looker = reference()
            if looker is not None:
                do(looker)

    return do_it


os.register_at_fork(
    before=_each(Looker.before_fork),
    after_in_parent=_each(Looker.after_fork),
    after_in_child=_each(Looker.after_fork_in_child),
)
