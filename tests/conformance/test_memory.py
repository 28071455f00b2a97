"""SQLite in memory: one connection, which threads have one at a time, and which forks leave alone."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from sqlalchemy.orm import Session

from celery_sql_results import DatabaseBackend, SessionManager, Task, session_cleanup
from celery_sql_results.dialects import Put, impl_for
from support import app_on, close, fork

THREADS, EACH = 8, 60
#: Seconds after which a thread is taken for stuck.
LONG = 60

_numbers = count()


def urls() -> list[str]:
    """Each kind of URL of a database in memory, with a name that nobody else uses where it has one."""
    named = f"sqlite:///file:memory{next(_numbers)}-{os.getpid()}?mode=memory&cache=shared&uri=true"
    return ["sqlite://", "sqlite:///:memory:", named, "sqlite:///file::memory:?cache=shared&uri=true"]


@pytest.fixture(params=range(4), ids=["none", "memory", "named", "memory, shared"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a database in memory."""
    return urls()[request.param]


@pytest.fixture
def make(url: str) -> Iterator[Callable[..., DatabaseBackend]]:
    """Makes backends on it, with settings."""
    made: list[DatabaseBackend] = []

    def make_one(**settings: Any) -> DatabaseBackend:
        made.append(app_on(url, **settings).backend)
        return made[-1]

    yield make_one
    for backend in made:
        close(backend)


@pytest.fixture
def backend(make: Callable[..., DatabaseBackend]) -> DatabaseBackend:
    """A backend with the defaults."""
    return make(result_backend_max_retries=0)


def put_both(backend: DatabaseBackend, task_id: str) -> None:
    """Store a row with a part of a chord, which takes a transaction."""
    impl, row = impl_for("sqlite"), {"task_id": task_id, "status": states.SUCCESS, "result": b"1"}
    part = {"group_id": "g", "task_id": task_id, "position": 0, "status": states.SUCCESS}
    places = Put(backend.models.task, "task_id"), Put(backend.models.parts, "task_id")
    with impl.connect(backend.database.engine) as connection:
        impl.put_both(connection, places[0], row, places[1], part)


def counted(backend: DatabaseBackend, table: sa.Table) -> Any:
    """How many rows a table has."""
    with backend.database.engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()


def test_no_result_of_many_threads_is_lost(backend: DatabaseBackend) -> None:
    """Nor a part of a chord."""

    def work(thread: int) -> list[Any]:
        found = []
        for number in range(EACH):
            put_both(backend, f"{thread}-{number}-with-part")
            backend.store_result(f"{thread}-{number}", number, states.SUCCESS)
            found.append(backend.get_task_meta(f"{thread}-{number}", cache=False)["result"])
        return found

    with ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(work, range(THREADS)))

    assert found == [[*range(EACH)]] * THREADS
    assert counted(backend, backend.models.task) == 2 * THREADS * EACH
    assert counted(backend, backend.models.parts) == THREADS * EACH


def test_a_session_is_had_by_one_thread(backend: DatabaseBackend) -> None:
    """What another stores meanwhile is neither in its transaction nor rolled back with it."""
    backend.store_result("before", 1, states.SUCCESS)
    other = threading.Thread(target=backend.store_result, args=("other", 2, states.SUCCESS))
    session = backend.ResultSession()
    with session_cleanup(session):
        session.add(Task("mine"))
        session.flush()
        other.start()
        other.join(0.2)
        waits = other.is_alive()
        session.rollback()
    other.join(LONG)

    assert waits
    assert [backend.get_state(task_id) for task_id in ("before", "other", "mine")] == ["SUCCESS", "SUCCESS", "PENDING"]


@pytest.mark.parametrize("state", [states.SUCCESS, states.STARTED])
@pytest.mark.parametrize("commits", [True, False])
def test_the_same_thread_may_store_while_it_has_a_session(backend: DatabaseBackend, commits: bool, state: str) -> None:
    """In the same transaction: there is one connection."""
    session = backend.ResultSession()
    with session_cleanup(session):
        session.add(Task("session"))
        session.flush()
        backend.store_result("stored", 1, state)
        (session.commit if commits else session.rollback)()
    backend.store_result("after", 1, states.SUCCESS)

    expected = [state if commits else "PENDING", "SUCCESS"]
    assert [backend.get_state(task_id) for task_id in ("stored", "after")] == expected


def test_who_waits_too_long_is_told(make: Callable[..., DatabaseBackend]) -> None:
    """After ``pool_timeout``, in SQLAlchemy's words."""
    backend = make(database_engine_options={"pool_timeout": 0.1, "pool_size": 3})
    engine = backend.database.engine
    with ThreadPoolExecutor(1) as thread, engine.connect():
        told = thread.submit(engine.connect).exception()
    backend.store_result("t", 1, states.SUCCESS)

    assert isinstance(told, sa.exc.TimeoutError)
    assert backend.get_result("t") == 1


def test_another_thread_may_give_it_back(backend: DatabaseBackend) -> None:
    connection = backend.database.engine.connect()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(connection.close).result()
        thread.submit(backend.store_result, "t", 1, states.SUCCESS).result(LONG)

    assert backend.get_result("t") == 1


def strike(session: Session) -> None:
    """An interrupt in a transaction, after which SQLAlchemy does not trust the connection any more."""
    with session_cleanup(session):
        session.add(Task("struck"))
        session.flush()
        session.connection().invalidate()
        raise KeyboardInterrupt


def test_an_interrupt_loses_nothing(backend: DatabaseBackend) -> None:
    backend.store_result("before", 1, states.SUCCESS)
    with pytest.raises(KeyboardInterrupt):
        strike(backend.ResultSession())
    backend.store_result("after", 2, states.SUCCESS)

    found = {task_id: backend.get_state(task_id) for task_id in ("before", "struck", "after")}
    assert found == {"before": states.SUCCESS, "struck": states.PENDING, "after": states.SUCCESS}


def test_short_lived_sessions_lose_nothing(make: Callable[..., DatabaseBackend]) -> None:
    """Whoever asks for it in another way has the same database."""
    short = make(database_short_lived_sessions=True)
    short.store_result("t", 1, states.SUCCESS)

    assert short.get_result("t") == 1
    assert make().get_result("t") == 1


def child(backend: DatabaseBackend) -> None:
    """What a forked child does: it has a copy of its own."""
    backend.store_result("child", 1, states.SUCCESS)
    os._exit(backend.get_result("t") != 1 or backend.get_result("child") != 1)


@pytest.mark.parametrize("busy", [False, True])
def test_a_fork_leaves_it_alone(backend: DatabaseBackend, busy: bool) -> None:
    """Also while another thread stores."""
    ended, stored = threading.Event(), count()

    def store() -> None:
        while busy and not ended.is_set():
            backend.store_result(f"busy-{next(stored)}", "x" * 10_000, states.SUCCESS)

    backend.store_result("t", 1, states.SUCCESS)
    storing = threading.Thread(target=store)
    storing.start()
    for _ in range(10):
        pid = fork()
        if not pid:
            child(backend)
        assert os.waitpid(pid, 0)[1] == 0
    ended.set()
    storing.join(LONG)

    assert (backend.get_result("t"), backend.get_state("child")) == (1, states.PENDING)
    found = [backend.get_state(f"busy-{number}") for number in range(next(stored))]
    assert found == [states.SUCCESS] * len(found)


def test_who_forks_may_have_it_himself(backend: DatabaseBackend) -> None:
    """In parent and child it is his, until he gives it back."""
    backend.store_result("t", 1, states.SUCCESS)
    with backend.database.engine.connect():
        pid = fork()
        if not pid:
            child(backend)
        status = os.waitpid(pid, 0)[1]
    with ThreadPoolExecutor(1) as thread:
        thread.submit(backend.store_result, "after", 1, states.SUCCESS).result(LONG)

    assert (status, backend.get_result("after")) == (0, 1)


def test_it_ends_with_its_engine(url: str) -> None:
    manager = SessionManager()
    engine = manager.get_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x INTEGER)")
    manager.invalidate(url)

    assert not sa.inspect(manager.get_engine(url)).has_table("t")
    manager.invalidate(url)


def test_who_has_it_when_its_engine_ends_closes_it(url: str) -> None:
    """It stays whole until then, and is not left open."""
    backend = app_on(url).backend
    backend.store_result("t", 1, states.SUCCESS)
    with backend.database.engine.connect() as connection:
        own = connection.connection.driver_connection
        assert own is not None
        close(backend)
        found = connection.execute(sa.select(sa.func.count()).select_from(backend.models.task)).scalar()

    assert found == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        own.execute("SELECT 1")


def test_a_file_that_a_uri_names(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which each thread has a connection of its own."""
    monkeypatch.chdir(tmp_path)
    backend = app_on("sqlite:///file:memory.db?mode=rwc&uri=true").backend
    with backend.database.engine.connect(), ThreadPoolExecutor(1) as thread:
        thread.submit(backend.store_result, "t", 1, states.SUCCESS).result(LONG)
    close(backend)

    assert (tmp_path / "memory.db").exists()
