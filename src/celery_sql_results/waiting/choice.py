"""The best way to wait that a database has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy.engine import Engine

from celery_sql_results.rows import Rows

from .listening import ListenNotifier
from .notifier import Notifier
from .polling import ChangeNotifier, PollNotifier

__all__ = ["notifier_for"]


def notifier_for(rows: Rows, engine: Callable[[], Engine]) -> Notifier:
    """Choose the way to wait for tasks.

    ``engine`` makes one without a pool: a connection that is held while somebody waits must not be missing elsewhere.
    """
    tasks = rows.tasks
    if rows.waiters is not None:
        listening = engine()
        if tasks.impl.can_listen(listening):
            return ListenNotifier(tasks, rows.waiters, tasks.impl.listener(listening))
    if tasks.impl.counts_changes(tasks.engine):
        return ChangeNotifier(tasks, partial(tasks.impl.change_counter, engine()))
    return PollNotifier(tasks)
