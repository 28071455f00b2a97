"""The contenders: backends and the bare driver, by the same few verbs.

One is made in the process that plays it, connects to nothing until it is used, and is then used by one thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from celery import Celery, states
from celery.app.backends import by_url
from celery.app.task import Context
from celery.signals import task_prerun
from sqlalchemy import event, make_url
from sqlalchemy.orm import Session

from benchmarks.bare import Driver

#: The header by which our backend knows when a task was sent; others ignore it.
SENT = "celery_sql_results_sent"


@dataclass(frozen=True)
class Entry:
    """A contender on a database: what a process needs to know to play it."""

    contender: str
    url: str
    broker: str = "memory://"


class Contender:
    """One backend of Celery, in an app of its own."""

    #: Whether the database needs `install` before first use, as its users run it once.
    installs: ClassVar[bool] = False

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.app = Celery("benchmarks", broker=entry.broker, set_as_current=True)
        self.app.conf.update(self.settings(entry.url), broker_connection_retry_on_startup=True)
        self.app.task(name="benchmarks.echo")(echo)
        self.app.task(name="benchmarks.count")(count)
        self._request: Context | None = None

    def settings(self, url: str) -> dict[str, Any]:
        """What a user writes to choose this backend."""
        return {"result_backend": url}

    def install(self) -> None:
        """Create the tables, where this is a step of its own."""

    def load(self) -> None:
        """Import the backend and its driver, as a program has that is past its start; connect to nothing."""
        by_url(self.app.conf.result_backend, self.app.loader)

    def open(self) -> None:
        """Make the backend object, as a worker has it when it forks."""
        _ = self.app.backend

    def store(self, task_id: str, result: Any, state: str = states.SUCCESS) -> None:
        """Store one state of one task, as a worker does that knows the task."""
        self.app.backend.store_result(task_id, result, state, request=self.request(task_id))

    def request(self, task_id: str) -> Context:
        """What a worker knows of a task that has begun. A worker makes one for each; here that takes no time."""
        request = self._request = self._request or self._begun()
        request.id = request.root_id = task_id
        setattr(request, SENT, f"2026-07-21T12:00:00.123456 {task_id}")
        return request

    def _begun(self) -> Context:
        delivery = {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False}
        task = self.app.tasks["benchmarks.echo"]
        task.push_request(task=task.name, hostname="celery@benchmarks", delivery_info=delivery, called_directly=False)
        request: Context = task.request_stack.top
        task_prerun.send(sender=task, task_id="t", task=task, args=(), kwargs={})
        task.pop_request()
        return request

    def read(self, task_id: str) -> Any:
        """Read one result, not from a cache."""
        return self.app.backend.get_task_meta(task_id, cache=False)["result"]

    @property
    def keeps(self) -> int:
        """How many results this process has at hand, so that it need not ask for them again."""
        return len(self.app.backend._cache) + len(self.app.backend._pending_messages)

    def watch_commits(self, committed: Callable[[], None]) -> None:
        """From now on call `committed` when the database has replied that a result is committed.

        By default never: then nothing worth mentioning follows the commit before `store` returns.
        """


class OnSQLAlchemy(Contender):
    """What the two backends share that use SQLAlchemy."""

    def load(self) -> None:
        super().load()
        make_url(self.entry.url).get_dialect().import_dbapi()


class Ours(OnSQLAlchemy):
    """This project. By class path, so that it need not be installed; `sql+` in the URL means the same."""

    def settings(self, url: str) -> dict[str, Any]:
        return {"result_backend": "celery_sql_results.DatabaseBackend", "database_url": url}

    def watch_commits(self, committed: Callable[[], None]) -> None:
        """Each statement commits itself; the wake-up may come after the one that stores.

        Where both share a round trip, nobody but the server knows when the first was committed: so it counts from when
        they are sent, which is too early by the commit. Engine events would tell as well, but while somebody listens
        to them, statements take a slower way.
        """
        from celery_sql_results.connections.quick import DirectConnection

        impl = self.app.backend.database.impl
        put, at_once = impl.put, getattr(impl, "put_at_once", None)
        both = getattr(DirectConnection, "execute_and_then", None)

        def told(*arguments: Any) -> Any:
            awaited = put(*arguments)
            committed()
            return awaited

        def told_before(*arguments: Any) -> Any:
            committed()
            return both and both(*arguments)

        def told_at_once(*arguments: Any) -> Any:
            done = at_once and at_once(*arguments)
            if done:
                committed()
            return done

        impl.put = told
        impl.put_at_once = told_at_once
        if both:
            setattr(DirectConnection, both.__name__, told_before)


#: Where the other checkout of this project is.
BEFORE = "BENCHMARKS_BEFORE"


class Before(Ours):
    """This project as another checkout has it."""

    def __init__(self, entry: Entry) -> None:
        sys.path.insert(0, os.path.join(os.environ[BEFORE], "src"))
        super().__init__(entry)


class CeleryDatabase(OnSQLAlchemy):
    """Celery's own SQLAlchemy backend."""

    def settings(self, url: str) -> dict[str, Any]:
        return {"result_backend": f"db+{url}"}

    def watch_commits(self, committed: Callable[[], None]) -> None:
        """It closes its session after the commit, outside prefork children with the connection."""
        event.listen(Session, "after_commit", lambda _session: committed())


class Django(Contender):
    """django-celery-results, in a Django project with the defaults of Django."""

    installs = True

    def __init__(self, entry: Entry) -> None:
        import django

        os.environ.update(DJANGO_SETTINGS_MODULE="benchmarks.django_settings", BENCHMARKS_DATABASE=entry.url)
        django.setup()
        super().__init__(entry)

    def settings(self, url: str) -> dict[str, Any]:
        return {"result_backend": "django-db"}

    def load(self) -> None:
        from django.db import connections

        super().load()
        _ = connections["default"]

    def install(self) -> None:
        from django.core.management import call_command

        call_command("migrate", verbosity=0)


class Bare(Contender):
    """The driver alone: the statements that our backend sends, on one open connection."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry)
        self._ours = Ours(entry)
        self._driver: Driver | None = None

    def open(self) -> None:
        """Nothing: a connection must not be inherited by a fork."""

    @property
    def driver(self) -> Driver:
        """The connection, opened on first use."""
        if self._driver is None:
            self._driver = Driver(self._ours)
        return self._driver

    def store(self, task_id: str, result: Any, state: str = states.SUCCESS) -> None:
        self.driver.store(task_id, result, state)

    def read(self, task_id: str) -> Any:
        return self.driver.read(task_id)


#: In the order in which they take turns; the others are compared with the first.
CONTENDERS: dict[str, type[Contender]] = {
    "ours": Ours,
    "celery-db": CeleryDatabase,
    "django": Django,
    "redis": Contender,
    "bare": Bare,
}


class WaitingOff(Ours):
    """This project, where nobody is notified."""

    def settings(self, url: str) -> dict[str, Any]:
        return {**super().settings(url), "database_listen": False}


class Unsynced(Ours):
    """This project, told not to wait for the disk: a crash may undo what was stored in the last 0.6 s.

    Three times `wal_writer_delay`: https://www.postgresql.org/docs/current/wal-async-commit.html
    """

    def settings(self, url: str) -> dict[str, Any]:
        if make_url(url).get_backend_name() != "postgresql":
            raise RuntimeError("only PostgreSQL lets each connection choose")
        connect_args = {"options": "-c synchronous_commit=off"}
        return {**super().settings(url), "database_engine_options": {"connect_args": connect_args}}


#: The same under other conditions, for the benchmarks that name them.
VARIANTS: dict[str, type[Contender]] = {
    "before": Before,
    "ours-unsynced": Unsynced,
    "waiting off": WaitingOff,
    "1% awaited": Ours,
    "all awaited": Ours,
    "redis-disk": Contender,
    "await": Ours,
}


def echo(value: Any) -> Any:
    """Do what a task does that does nothing."""
    return value


def count(values: Sequence[Any]) -> int:
    """Do what the body of a chord does that does nearly nothing."""
    return len(values)


def make(entry: Entry) -> Contender:
    """The contender of an entry, in this process."""
    return {**CONTENDERS, **VARIANTS}[entry.contender](entry)


def install(contender: Contender) -> None:
    """What its users run once on a new database."""
    contender.install()
