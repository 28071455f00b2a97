"""The best way to wait that a database has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy.engine import Engine

from celery_sql_results.rows.tasks import Store

from .listening import ListenNotifier
from .notifier import Notifier
from .polling import ChangeNotifier, PollNotifier

__all__ = ["notifier_for"]


def notifier_for(store: Store, engine: Callable[[], Engine]) -> Notifier:
    """Choose the way to wait for the rows of a store.

    ``engine`` makes one without a pool: a connection that is held while somebody waits must not be missing elsewhere.
    """
    if store.notifies:
        return ListenNotifier(store, store.impl.listener(engine()))
    if store.impl.counts_changes(store.engine):
        return ChangeNotifier(store, partial(store.impl.change_counter, engine()))
    return PollNotifier(store)
