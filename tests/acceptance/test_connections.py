"""How many connections real workers and their caller hold, counted at the server: no more than the documentation says.

One for each child that has just stored, one for a worker's main process, with another for moments; of who waits, one
that listens and one to read, with another for moments. When nothing is to be done, none, but for the moments of the
upkeep.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, group, states

from acceptance.conftest import MakeApp
from acceptance.worker import PATIENCE, Worker, running, settings_for
from faults.load import until
from faults.trouble import connections
from servers import Database, PgBouncer, PostgreSQL
from servers.pool import or_skip

#: Children of a worker, and tasks that each of them runs.
CHILDREN, EACH = 4, 5
MAIN, WAITING, LOOKING = 2, 3, 1
MOST = CHILDREN + MAIN + WAITING
IDLE = {"database_idle_timeout": 1}
WAYS = [
    ("postgresql", "prefork", IDLE),
    ("postgresql", "threads", IDLE),
    ("mariadb", "prefork", IDLE),
    ("postgresql", "prefork", {"database_short_lived_sessions": True}),
]
#: A server connection is another's in each transaction.
UNPREPARED = {"database_engine_options": {"connect_args": {"prepare_threshold": None}}}


@contextmanager
def counted(database: Database) -> Iterator[list[int]]:
    """How many connections there are, again and again during the block."""
    counts: list[int] = []
    has_ended = threading.Event()

    def count() -> None:
        while not has_ended.wait(0.05):
            counts.append(len(connections(database)))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        has_ended.set()
        thread.join()


def work(app: Celery, seconds: float = 0.1) -> list[Any]:
    """What comes of tasks that keep all children busy."""
    tasks = [*(app.tasks["nap"].s(seconds) for _ in range(CHILDREN * (EACH - 1))), *numbers(app)]
    found: list[Any] = group(tasks).apply_async().get(timeout=PATIENCE)
    return found[-CHILDREN:]


def numbers(app: Celery) -> list[Any]:
    return [app.tasks["add"].s(number, 1) for number in range(CHILDREN)]


#: What :func:`work` finds.
DONE = list(range(1, CHILDREN + 1))


@pytest.mark.parametrize(("database", "pool", "more"), WAYS, indirect=["database"])
def test_how_many(database: Database, pool: str, more: Mapping[str, Any], make: MakeApp, tmp_path: Path) -> None:
    """While there is work, and a while later."""
    settings = settings_for(tmp_path, f"sql+{database.url}", **more)
    worker = Worker(tmp_path, settings, f"--pool={pool}", f"--concurrency={CHILDREN}")
    with running(worker), counted(database) as counts:
        assert work(make(settings)) == DONE
        until(lambda: len(connections(database)) <= MAIN, "the others are closed")
        assert max(counts) <= MOST

    assert (worker.complaints, database.errors()) == ([], [])


def test_a_server_with_just_so_many(make: MakeApp, tmp_path: Path) -> None:
    """Nobody is refused."""
    with or_skip("postgresql"), PostgreSQL({"max_connections": str(MOST + LOOKING)}) as server:
        server.create_database("results")
        settings = settings_for(tmp_path, f"sql+{server.url('results')}", **IDLE)
        worker = Worker(tmp_path, settings, "--pool=prefork", f"--concurrency={CHILDREN}")
        app = make(settings)
        with running(worker):
            assert [work(app) for _ in range(3)] == [DONE] * 3

        assert (worker.complaints, server.errors()) == ([], [])
        app.backend.ResultSession().get_bind().engine.dispose()
        app.close()


@contextmanager
def bounced(postgresql: Database, mode: str, size: int) -> Iterator[Database]:
    """The database behind a PgBouncer with some server connections."""
    assert isinstance(postgresql.server, PostgreSQL)
    settings = {"pool_mode": mode, "default_pool_size": str(size)}
    with or_skip("pgbouncer"), PgBouncer(postgresql.server, settings) as bouncer:
        yield replace(postgresql, kind="pgbouncer", url=bouncer.url(postgresql.name))


def test_a_session_each_is_too_many(postgresql: Database, make: MakeApp, tmp_path: Path) -> None:
    """A pooler that has one for each child, and none beside: the main process and who waits get those of others."""
    with bounced(postgresql, "session", CHILDREN) as database:
        settings = settings_for(tmp_path, f"sql+{database.url}")
        worker = Worker(tmp_path, settings, "--pool=prefork", f"--concurrency={CHILDREN}")
        with running(worker):
            app = make(settings)
            assert [work(app) for _ in range(2)] == [DONE] * 2


def test_who_waits_has_his_turn(postgresql: Database, make: MakeApp, tmp_path: Path) -> None:
    """Though others store all the time, and the pooler has no session beside theirs."""
    with bounced(postgresql, "session", 2) as database:
        settings = settings_for(tmp_path, f"sql+{database.url}", database_idle_timeout=0.5)
        writers = [make({**settings, "database_engine_options": {"pool_size": size}}) for size in (1, 2)]
        for writer in writers:  # each has a pool, as a process has one
            writer.backend.store_result("t", 1, states.SUCCESS)
        has_found = threading.Event()
        busy = [threading.Thread(target=keep_busy, args=(writer, has_found)) for writer in writers]
        for thread in busy:
            thread.start()
        try:
            assert make(settings).AsyncResult("t").get(timeout=PATIENCE) == 1
        finally:
            has_found.set()
            for thread in busy:
                thread.join()


def keep_busy(app: Celery, until_set: threading.Event) -> None:
    """Store again and again, more often than a connection may be idle."""
    while not until_set.wait(0.02):
        app.backend.store_result("u", 1, states.SUCCESS)


def test_transactions(postgresql: Database, make: MakeApp, tmp_path: Path) -> None:
    """Fewer server connections than children serve them all; who listens has one of his own, past the pooler."""
    with bounced(postgresql, "transaction", 2) as database, counted(postgresql) as counts:
        more = {**UNPREPARED, "database_listen_url": postgresql.url}
        settings = settings_for(tmp_path, f"sql+{database.url}", **more)
        worker = Worker(tmp_path, settings, "--pool=prefork", f"--concurrency={CHILDREN}")
        app = make(settings)
        with running(worker):
            assert work(app) == DONE
            assert max(counts) <= 2 + 1

        assert worker.complaints == []
