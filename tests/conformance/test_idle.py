"""`database_idle_timeout`: who does not use the database holds no connection, and who does keeps his own."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import states
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from celery_sql_results import DatabaseBackend
from celery_sql_results.session import SessionManager
from concurrency.test_forks import in_a_child
from faults.load import until
from faults.trouble import connections, kill
from servers import Database
from servers.pool import on
from support import Backends, need

PROGRAM = Path(__file__).with_name("idle.py")
#: Seconds that a connection may be idle, where the test waits for its end; and where it must not end.
SHORT, LONG = 0.2, 600
SERVERS = on("postgresql", "mariadb")
DRIVERS = [
    ("postgresql", "psycopg"),
    ("postgresql", "psycopg2"),
    ("postgresql", "pg8000"),
    ("mariadb", "pymysql"),
]


def until_gone(database: Database, spared: frozenset[int] = frozenset()) -> None:
    """Return when nobody is connected, but for some."""
    until(lambda: connections(database) <= spared, "the others are closed")


def store(backend: DatabaseBackend, task_id: str) -> None:
    backend.store_result(task_id, task_id, states.SUCCESS)


def together(number: int, work: Callable[[int], object]) -> None:
    """Do something in several threads, and return when all have done it."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("database", "driver"), DRIVERS, indirect=["database"])
def test_an_idle_connection_is_closed(
    database: Database, backends: Backends, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And another is opened for the next result, again and again; nobody says a word."""
    pytest.importorskip(driver)
    backend = backends(database.server.url(database.name, driver=driver), database_idle_timeout=SHORT)
    for task_id in "abc":
        store(backend, task_id)
        until_gone(database)

    assert [backend.get_result(task_id) for task_id in "abc"] == ["a", "b", "c"]
    assert (caplog.messages, database.errors()) == ([], [])


@SERVERS
def test_after_several_at_once(database: Database, backends: Backends) -> None:
    """What one thread goes on using is kept, and it alone."""
    backend = backends(database_idle_timeout=SHORT)
    engine = backend.database.engine
    all_have_one = threading.Barrier(4)

    def hold(_: int) -> None:
        with engine.connect():
            all_have_one.wait()

    together(4, hold)
    assert len(connections(database)) == 4
    until(lambda: store(backend, "t") or len(connections(database)) == 1, "one is left")


@SERVERS
def test_a_busy_process_keeps_its_connection(database: Database, backends: Backends) -> None:
    """From one task to the next, for longer than it may be idle."""
    backend = backends(database_idle_timeout=2)
    opened: list[object] = []
    store(backend, "t")
    event.listen(backend.database.engine, "connect", lambda *_: opened.append(1))
    began = last = time.monotonic()
    late = 0
    while last - began < 5:
        time.sleep(0.05)
        store(backend, "t")
        late += time.monotonic() - last >= 2  # on a machine that has much else to do
        last = time.monotonic()

    assert len(opened) <= late


@SERVERS
def test_a_busy_process_lets_go_now_and_then(database: Database, backends: Backends) -> None:
    """Or who waits for one of the few of a pooler would never have his turn."""
    backend = backends(database_idle_timeout=SHORT)
    closed = closings(backend)
    until(lambda: store(backend, "t") or len(closed) > 1, "it was closed twice")

    assert (backend.get_result("t"), database.errors()) == ("t", [])


@SERVERS
def test_for_ever(database: Database, backends: Backends) -> None:
    """With 0, and with a pool of the user's: these are there when those of others, which began later, are gone."""
    kept = [
        backends(database_idle_timeout=0),
        backends(database_engine_options={"poolclass": QueuePool}, database_idle_timeout=SHORT),
        backends(database_idle_timeout=LONG),
    ]
    for backend in kept:
        store(backend, "t")
    theirs = frozenset(connections(database))
    store(backends(database_idle_timeout=SHORT), "t")
    until_gone(database, theirs)

    assert (len(theirs), connections(database)) == (3, theirs)


@SERVERS
def test_apps_share_a_connection_and_its_end(database: Database, backends: Backends) -> None:
    """The use of each keeps it; when none of them uses it, it goes."""
    apps = [backends(database_idle_timeout=SHORT) for _ in range(3)]
    for app in apps:
        store(app, "t")
    assert len(connections(database)) == 1
    until_gone(database)


@SERVERS
@pytest.mark.parametrize("size", [1, 2])
def test_threads_of_a_pool_that_is_full(database: Database, backends: Backends, size: int) -> None:
    """What is closed just as somebody waits for it is opened for him."""
    options = {"pool_size": size, "max_overflow": 0, "pool_timeout": 60}
    backend = backends(database_idle_timeout=0.001, database_engine_options=options)

    def work(thread: int) -> None:
        for number in range(40):
            store(backend, f"{thread}-{number}")
            time.sleep(0.002 * (number % 3))

    together(6, work)
    ((stored,),) = database.execute("SELECT COUNT(*) FROM celery_taskmeta")
    assert (stored, database.errors()) == (240, [])
    until_gone(database)


def closings(backend: DatabaseBackend) -> list[object]:
    """Is filled with the connections of a backend as they are closed."""
    closed: list[object] = []
    event.listen(backend.database.engine, "close", lambda connection, _: closed.append(connection))
    return closed


@on("postgresql", "mariadb", "sqlite")
def test_a_fork(database: Database, backends: Backends) -> None:
    """While a connection is idle: parent and child each close their own."""
    backend = backends(database_idle_timeout=1)
    closed = closings(backend)
    store(backend, "parent")

    def child() -> None:
        store(backend, "child")
        until(lambda: closed, "the child's is closed")
        store(backend, "child again")

    assert in_a_child(child) == 0
    until(lambda: closed, "the parent's is closed")
    names = ["parent", "child", "child again"]
    assert [backend.get_result(name) for name in names] == names


@on("sqlite")
def test_a_database_in_memory(database: Database, backends: Backends) -> None:
    """It ends with its connection: so that is kept, when those to a file have been closed twice."""
    urls = ("sqlite://", "sqlite:///file:shared?mode=memory&cache=shared&uri=true")
    in_memory = [backends(url, database_idle_timeout=0.01) for url in urls]
    in_a_file = backends(database.url, database_idle_timeout=0.01)
    closed = closings(in_a_file)
    for backend in in_memory:
        store(backend, "t")
    until(lambda: store(in_a_file, "t") or len(closed) > 1, "those to the file are closed")

    assert [backend.get_result("t") for backend in in_memory] == ["t", "t"]


@SERVERS
def test_who_has_waited(database: Database, backends: Backends) -> None:
    """Holds nothing a while later, not even what listens; who waits does."""
    backend = backends(database_idle_timeout=SHORT)
    writer = backends(database_idle_timeout=SHORT, result_extended=True, database_engine_options={"pool_size": 1})
    waits = threading.Thread(target=lambda: backend.app.AsyncResult("t").get(timeout=60))
    waits.start()
    listens = database.kind == "postgresql" and "pg8000" not in database.url
    until(lambda: not listens or backend.looker.is_told(["t"]), "it is told")
    store(writer, "t")
    waits.join()
    until_gone(database)
    until(lambda: not backend.looker.threads, "its threads end")


@SERVERS
def test_a_server_that_was_restarted_meanwhile(
    database: Database, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """What is closed is dead already."""
    backend = backends(database_idle_timeout=1)
    closed = closings(backend)
    store(backend, "t")
    kill(database)
    until(lambda: closed, "it is closed")

    assert (backend.get_result("t"), caplog.messages) == ("t", [])


@on("postgresql")
def test_a_listener_that_fails(database: Database, backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """On the end of a connection: that is told, and the next is closed all the same."""
    backend = backends(database_idle_timeout=SHORT)
    seen: list[int] = []

    def fail(*_: object) -> None:
        seen.append(1)
        if len(seen) == 1:
            raise LookupError("not yet")

    event.listen(backend.database.engine, "close", fail)
    store(backend, "t")
    until_gone(database)

    assert caplog.messages == ["an idle connection could not be closed: LookupError"]
    assert (len(seen), backend.get_result("t")) == (2, "t")


@SERVERS
def test_an_engine_that_goes(database: Database, backends: Backends) -> None:
    """It is not kept for its connections, and does not leave them behind."""
    manager = SessionManager()
    engine = manager.get_engine(database.url, idle_timeout=LONG)
    with engine.connect():
        pass
    assert len(connections(database)) == 1
    del manager, engine
    gc.collect()
    until_gone(database)


@SERVERS
@pytest.mark.parametrize("how", ["plain", "gevent", "eventlet"])
def test_a_program(database: Database, how: str) -> None:
    """Holds none while it does something else, and ends at once while one is idle, with nothing to complain of."""
    need(how)
    path = os.pathsep.join([str(PROGRAM.parents[1]), *filter(None, sys.path)])
    command = [sys.executable, str(PROGRAM), how, database.url]
    environment = {**os.environ, "PYTHONPATH": path}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "stored\n"
        until_gone(database)
        told = program.communicate("\n", timeout=60)

    assert (told, program.returncode) == (("1\n", ""), 0)
