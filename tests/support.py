"""What several folders of tests share: apps, requests, and ways to look at what is stored."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any

import celery
import pytest
from celery import Celery
from celery.app.task import Context

from celery_sql_results import DatabaseBackend
from celery_sql_results.waiting import looker as consumer_module

#: Celery's own version, to skip what needs the `db+` backend of 5.7.
CELERY = tuple(int(part) for part in celery.__version__.split(".")[:2])
#: Every serializer that a result may be stored with.
SERIALIZERS = ("json", "pickle", "yaml", "msgpack")

#: Makes a backend with some settings.
Backends = Callable[..., DatabaseBackend]
#: `with statements() as seen` collects what a server is asked.
Statements = Callable[[], AbstractContextManager[list[str]]]


def need(pool: str) -> None:
    """Skip the test of a pool, or of a library, that may be missing on some Python; in CI, fail."""
    if pool in ("gevent", "eventlet", "celery_batches") and find_spec(pool) is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"{pool} is missing: pip install {pool}")


def app_on(url: str | None, scheme: str = "sql", **settings: Any) -> Celery:
    """An app whose results go to `url`; with the scheme `db` through Celery's own backend."""
    app = Celery("tests", broker="memory://", set_as_current=False)
    app.conf.update(result_backend=f"{scheme}+{url}", **settings)
    return app


def fork() -> int:
    """Fork this process. The child must do next to nothing: threads of other tests may hold locks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # which says that
        return os.fork()


def request(task_id: str = "t", **more: Any) -> Context:
    """What a worker knows of a task while it runs."""
    known: dict[str, Any] = {
        "task": "shop.pay",
        "args": [1, "zwei"],
        "kwargs": {"currency": "€"},
        "hostname": "celery@shop-1",
        "retries": 2,
        "delivery_info": {"routing_key": "orders"},
        "parent_id": "the-parent",
        "root_id": "the-root",
        "group": "the-group",
    }
    return Context({"id": task_id, **known, **more})


def parent(*children: Any) -> Context:
    """What a worker knows of a task that has sent others."""
    found = request()
    found.children.extend(children)
    return found


def close(backend: DatabaseBackend) -> None:
    """Close the connections of a backend, and end the thread that looks for results, which else lingers for a while.

    That thread must be gone before its database is dropped, with the one that may be opening a connection just then.
    """
    waiting = next(iter(backend._services.waits._made), None)
    thread = waiting and waiting._thread
    if thread is not None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(consumer_module, "LINGER", 0.0)
            waiting._subscriptions.clear()
            opening = vars(waiting._notifier).get("_opening")
            waiting._notifier.interrupt()
            thread.join()
            if opening is not None:
                opening.join()
    options = {**backend.engine_options, "short_lived_sessions": backend.short_lived_sessions}
    backend.session_manager.invalidate(backend.settings.url, **options)


@contextmanager
def closed_at_the_end() -> Iterator[list[DatabaseBackend]]:
    """A list for backends, which are closed when the block has ended."""
    made: list[DatabaseBackend] = []
    yield made
    for backend in made:
        close(backend)
