"""What processes of one family and threads of one process do with the backend that they share."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery, states
from sqlalchemy.engine import make_url

from celery_sql_results import DatabaseBackend

from .actors import backend_on, quick
from .nursery import PATIENCE, Outcome, at_once, complaints, errors

#: How many results each process or thread stores and reads.
TIMES = 20
#: How the server names the connection that asks. SQLite has no server.
WHO_AM_I = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()", "sqlite": "SELECT 0"}
#: How many other connections to this database the server has.
HOW_MANY = {
    "postgresql": "SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
    "AND datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}


@dataclass
class Family:
    """What a parent tells of itself and of its children: the connections that each used, and what went wrong."""

    before: int
    after: int = 0
    children: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def use(backend: DatabaseBackend, name: str) -> int:
    """Store and read through a backend; return the server's name of the connection."""
    for number in range(TIMES):
        task_id = f"{name}-{number}"
        backend.store_result(task_id, task_id, states.SUCCESS)
        assert backend.get_result(task_id) == task_id
    engine = backend.database.engine
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(WHO_AM_I[engine.dialect.name]).scalar_one())


def raise_children(url: str, children: int) -> Family:
    """Use a backend, fork children that use it at once, and use it again."""
    backend = backend_on(url)
    family = Family(before=use(backend, "before"))
    outcomes = at_once([(use, (backend, f"child-{number}")) for number in range(children)])
    return reunited(family, backend, outcomes)


def raise_children_while_busy(url: str, children: int, threads: int = 4) -> Family:
    """The same while threads of the parent are in the middle of stores."""
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)  # it is what we are here for
    backend = backend_on(url)
    family = Family(before=use(backend, "before"))
    with busy(backend, threads) as failed:
        outcomes = at_once([(use, (backend, f"child-{number}")) for number in range(children)])
    family.wrong += failed
    return reunited(family, backend, outcomes)


def raise_children_while_beginning(url: str, children: int) -> Family:
    """The same while a thread of the parent is in the middle of its first use, connecting."""
    here, connecting, goes_on, first = os.getpid(), threading.Event(), threading.Event(), list[int]()

    def hold(*_: object) -> None:
        if os.getpid() == here:
            connecting.set()
            goes_on.wait(PATIENCE)

    settings = {"database_url": url, "database_engine_options": quick(url), "database_create_tables_at_setup": False}
    app = Celery("beginning", broker="memory://", set_as_current=False)
    app.conf.update(result_backend="celery_sql_results:DatabaseBackend", **settings)
    app.conf.database_engine_callback = lambda engine: sa.event.listen(engine, "do_connect", hold)
    backend = app.backend
    thread = threading.Thread(target=lambda: first.append(use(backend, "before")))
    thread.start()
    connecting.wait(PATIENCE)
    outcomes = at_once([(use, (backend, f"child-{number}")) for number in range(children)])
    goes_on.set()
    thread.join(PATIENCE)
    return reunited(Family(before=first[0]), backend, outcomes)


def reunited(family: Family, backend: DatabaseBackend, outcomes: list[Outcome]) -> Family:
    """The family after the children have ended."""
    family.wrong += errors(outcomes) + complaints(outcomes)
    family.children = [outcome.value for outcome in outcomes]
    family.after = use(backend, "after")
    return family


@contextmanager
def busy(backend: DatabaseBackend, threads: int) -> Iterator[list[str]]:
    """Let threads store without a pause during the block; gives the list of what they fail with."""
    ended, failed = threading.Event(), list[str]()

    def store() -> None:
        number = 0
        while not ended.is_set():
            try:
                backend.store_result(f"busy-{threading.get_ident()}-{number % 50}", number, states.SUCCESS)
            except Exception as error:  # noqa: BLE001  the test reports it, whatever it is
                failed.append(repr(error))
                return
            number += 1

    workers = [threading.Thread(target=store) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield failed
    finally:
        ended.set()
        for worker in workers:
            worker.join(PATIENCE)


@dataclass
class Crowd:
    """What many threads of one process had in common."""

    backends: int
    engines: int
    most: int
    still_used: int
    left: int
    wrong: list[str]


def share(url: str, threads: int, pool_size: int, max_overflow: int) -> Crowd:
    """Let threads use the backend of one app, and count the connections at the server meanwhile and afterwards.

    Celery itself gives a backend each to threads that ask for the first time at the same instant: so we ask before.
    """
    app = Celery("crowd", broker="memory://", set_as_current=False)
    options = {"pool_size": pool_size, "max_overflow": max_overflow, **quick(url)}
    app.conf.update(result_backend="celery_sql_results:DatabaseBackend", database_url=url)
    app.conf.update(database_engine_options=options)
    seen, counts, wrong = [app.backend], list[int](), list[str]()
    start = threading.Barrier(threads)
    members = [threading.Thread(target=join_in, args=(app, start, n, seen, wrong)) for n in range(threads)]
    for member in members:
        member.start()
    while any(member.is_alive() for member in members):
        counts.append(connections(url))
    engine = seen[0].database.engine
    engines = {id(backend.database.engine) for backend in seen}
    still_used = engine.pool.checkedout()  # type: ignore[attr-defined]
    engine.dispose()
    return Crowd(len(set(map(id, seen))), len(engines), max(counts), still_used, settled(url), wrong)


def join_in(app: Celery, start: threading.Barrier, number: int, seen: list[DatabaseBackend], wrong: list[str]) -> None:
    """Be one of the threads."""
    try:
        start.wait(PATIENCE)
        seen.append(app.backend)
        use(app.backend, f"thread-{number}")
    except Exception as error:  # noqa: BLE001  the test reports it, whatever it is
        wrong.append(repr(error))


def connections(url: str) -> int:
    """How many connections to the database there are: at the server, or for SQLite as open files of this process."""
    where = make_url(url)
    if where.get_backend_name() == "sqlite":
        return sum(is_open(link, str(where.database)) for link in Path("/proc/self/fd").iterdir())
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=quick(url).get("connect_args", {}))
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(HOW_MANY[where.get_backend_name()]).scalar_one())


def is_open(link: Path, path: str) -> bool:
    """Whether an entry of the list of open files is a given file."""
    try:
        return os.readlink(link) == path
    except OSError:  # closed meanwhile
        return False


def settled(url: str) -> int:
    """How many connections are left once all are gone, or at the latest after a while: a server needs a moment."""
    deadline: Any = time.monotonic() + 10
    while connections(url) and time.monotonic() < deadline:
        time.sleep(0.01)
    return connections(url)
