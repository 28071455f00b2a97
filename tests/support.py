"""What several folders of tests share: apps, requests, and ways to look at what is stored."""

from __future__ import annotations

import os
import time
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


def of_session(url: str, **settings: str) -> dict[str, Any]:
    """Options of an engine that give sessions on PostgreSQL some settings of the server, as each driver takes them."""
    if "+pg8000" in url:
        return {"connect_args": {"startup_params": settings}}
    return {"connect_args": {"options": " ".join(f"-c {name}={value}" for name, value in settings.items())}}


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


#: Seconds in which the threads of an app that was closed must have ended.
ENDED_WITHIN = 20.0


def close(*backends: DatabaseBackend) -> None:
    """Close apps and their connections, and see to it that what looked for their results has ended.

    That must be gone before its database is dropped, with the thread that may be opening a connection just then.
    """
    lookers = [found for backend in backends if (found := backend._services.waits.share.found)]
    threads = [(looker, thread) for looker in lookers for thread in looker.threads]
    for backend in backends:
        backend.app.close()
    deadline = time.monotonic() + ENDED_WITHIN
    for looker, thread in threads:
        while thread.is_alive() and not looker.is_used and time.monotonic() < deadline:
            thread.join(0.01)
    for backend in backends:
        kept = {"short_lived_sessions": backend.short_lived_sessions, "idle_timeout": backend.settings.idle_timeout}
        backend.session_manager.invalidate(backend.settings.url, **backend.engine_options, **kept)


@contextmanager
def closed_at_the_end() -> Iterator[list[DatabaseBackend]]:
    """A list for backends, which are closed when the block has ended."""
    made: list[DatabaseBackend] = []
    yield made
    close(*made)
