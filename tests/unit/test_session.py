"""Engines and sessions of one process, on files of SQLite."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from celery_sql_results import SessionManager, Task, session_cleanup
from celery_sql_results.dialects import PingingPool
from servers import Database


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a new database."""
    return f"sqlite:///{tmp_path / 'results.db'}"


@pytest.fixture
def manager(url: str) -> Iterator[SessionManager]:
    """A manager whose default engine is closed afterwards."""
    manager = SessionManager()
    yield manager
    manager.invalidate(url)


def test_one_engine_for_the_same_url_and_options(manager: SessionManager, url: str) -> None:
    """Also for another manager: engines belong to the process."""
    engines = {manager.get_engine(url), manager.get_engine(url), SessionManager().get_engine(url)}

    assert len(engines) == 1


@pytest.mark.parametrize(
    "options",
    [{"pool_recycle": 60}, {"short_lived_sessions": True}, {"connect_args": {"timeout": 1}}, {"pool_size": 3}],
    ids=str,
)
def test_other_options_are_another_engine(manager: SessionManager, url: str, options: dict[str, Any]) -> None:
    """Whatever the kind of their values, also nested."""
    other = manager.get_engine(url, **options)
    again = manager.get_engine(url, **{name: _copied(value) for name, value in options.items()})
    manager.invalidate(url, **options)

    assert other is not manager.get_engine(url)
    assert again is other


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


@pytest.mark.parametrize("value", [[1, 2], {"a": [1, {"b": 2}]}, {1, 2}, bytearray(b"x")], ids=str)
def test_options_that_cannot_be_hashed_are_fine(manager: SessionManager, url: str, value: Any) -> None:
    """Lists and dicts count by content, other things by identity."""
    options = {"execution_options": {"ours": value}}
    engine = manager.get_engine(url, **options)
    same = manager.get_engine(url, **options)
    manager.invalidate(url, **options)

    assert same is engine


def test_other_callbacks_are_another_engine(manager: SessionManager, url: str) -> None:
    """A callback sees each engine that is made for it, once."""
    seen: list[Engine] = []
    own = SessionManager(seen.append)
    engines = [own.get_engine(url) for _ in range(2)]
    own.invalidate(url)

    assert seen == engines[:1]
    assert engines[0] is not manager.get_engine(url)


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("psycopg", {"connect_timeout": 30, "tcp_user_timeout": 60_000}),
        ("psycopg2", {"connect_timeout": 30, "tcp_user_timeout": 60_000}),
        ("pg8000", {"timeout": 150}),
    ],
)
def test_a_silent_server_is_given_up(driver: str, expected: dict[str, int]) -> None:
    """As far as a driver can."""
    pytest.importorskip(driver)
    told: dict[str, Any] = {}

    def listen(engine: Engine) -> None:
        sa.event.listen(engine, "do_connect", lambda _dialect, _record, _args, options: told.update(options))

    manager, url = SessionManager(listen), f"postgresql+{driver}://nobody@127.0.0.1:1/nowhere"
    with pytest.raises(sa.exc.DBAPIError):
        manager.get_engine(url).connect()
    manager.invalidate(url)

    assert {name: told.get(name) for name in expected} == expected


def test_invalidate_makes_the_next_use_a_new_engine(manager: SessionManager, url: str) -> None:
    """And closes the old one's connections."""
    old = manager.get_engine(url)
    old.connect().close()
    manager.invalidate(url)

    assert old.pool.status().startswith("Pool size: 5  Connections in pool: 0")
    assert manager.get_engine(url) is not old


@pytest.mark.parametrize(("short", "expected"), [(False, PingingPool), (True, NullPool)])
def test_pool(manager: SessionManager, url: str, short: bool, expected: type[Any]) -> None:
    """Options of a pool mean nothing where none is kept, and are no error."""
    options = {
        "pool_size": 2,
        "max_overflow": 1,
        "pool_timeout": 3,
        "pool_use_lifo": True,
        "short_lived_sessions": short,
    }
    engine = manager.get_engine(url, **options)
    manager.invalidate(url, **options)

    assert type(engine.pool) is expected


def connections_to(database: Database) -> int:
    """How many the server has, once those that were closed have gone."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ((found,),) = database.execute(others)
    for _ in range(200):
        time.sleep(0.01)
        ((later,),) = database.execute(others)
        if later == found:
            return int(found)
        found = later
    raise AssertionError("they come and go")


def used(manager: SessionManager, url: str, **options: Any) -> weakref.ref[Engine]:
    """Use an engine, which leaves an idle connection, and look at it from afar."""
    engine = manager.get_engine(url, **options)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    return weakref.ref(engine)


@pytest.mark.parametrize("options", [{}, {"poolclass": QueuePool}, {"short_lived_sessions": True}], ids=str)
def test_an_engine_ends_with_its_last_user(postgresql: Database, options: dict[str, Any]) -> None:
    """And so do its connections. The last user is a manager that gave it out, or whoever has it."""
    one, other = SessionManager(), SessionManager()
    engine = used(one, postgresql.url, **options)
    assert used(other, postgresql.url, **options) == engine
    del one
    gc.collect()
    assert engine() is not None
    kept = other.get_engine(postgresql.url, **options)
    del other
    gc.collect()
    assert engine() is kept
    del kept
    gc.collect()

    assert (engine(), connections_to(postgresql)) == (None, 0)


def test_engines_of_apps_that_are_gone(postgresql: Database) -> None:
    """Each had a callback and options of its own, which end as well."""
    engines, watched = [], []
    for number in range(20):
        tag = {number}
        callback = lambda engine, tag=tag: None  # noqa: E731
        watched.append(weakref.ref(callback))
        engines.append(used(SessionManager(callback), postgresql.url, execution_options={"tag": tag}))
    del callback, tag
    gc.collect()

    assert [found for found in engines + watched if found() is not None] == []
    assert connections_to(postgresql) == 0


def test_a_manager_keeps_its_engine(manager: SessionManager, url: str) -> None:
    """Also where nobody else has it, with its idle connections."""
    engine = used(manager, url)
    gc.collect()

    assert engine() is manager.get_engine(url)
    assert "Connections in pool: 1" in manager.get_engine(url).pool.status()


def test_only_who_wants_the_same_engine_waits_while_it_is_made(tmp_path: Path) -> None:
    """A callback may take its time: it might fetch a password."""
    begun, go_on = threading.Event(), threading.Event()
    seen: list[Engine] = []

    def slow(engine: Engine) -> None:
        seen.append(engine)
        begun.set()
        go_on.wait(30)

    manager, url = SessionManager(slow), f"sqlite:///{tmp_path / 'slow.db'}"
    with ThreadPoolExecutor(3) as threads:
        same = [threads.submit(manager.get_engine, url) for _ in range(2)]
        begun.wait(30)
        other = threads.submit(SessionManager().get_engine, f"sqlite:///{tmp_path / 'other.db'}").result(30)
        finished = [future.done() for future in same]
        go_on.set()
        engines = {future.result(30) for future in same}

    assert finished == [False, False]
    assert engines == {*seen} != {other}
    assert len(seen) == 1


def test_an_engine_that_cannot_be_made_is_no_engine(url: str) -> None:
    """The next who asks for it tries anew, and nothing is kept."""
    asked = []

    def callback(engine: Engine) -> None:
        asked.append(engine)
        if len(asked) == 1:
            raise ValueError("not yet")

    manager = SessionManager(callback)
    with pytest.raises(ValueError, match="not yet"):
        manager.get_engine(url)

    assert manager.get_engine(url) is asked[1]


def test_parameters_are_hidden_in_errors(manager: SessionManager, url: str) -> None:
    """Payloads do not belong into logs."""
    with (
        manager.get_engine(url).connect() as connection,
        pytest.raises(sa.exc.OperationalError) as caught,
    ):
        connection.execute(sa.text("SELECT :secret FROM nowhere"), {"secret": "payload"})

    assert "payload" not in str(caught.value)
    assert "hide_parameters" in str(caught.value)


def test_options_go_over_ours(manager: SessionManager, url: str) -> None:
    """The user's word is the last."""
    options = {"hide_parameters": False, "connect_args": {"timeout": 1}}
    engine = manager.get_engine(url, **options)
    manager.invalidate(url, **options)

    assert engine.hide_parameters is False


def test_session_cleanup_closes(manager: SessionManager, url: str) -> None:
    """The connection is back in the pool."""
    session = manager.session_factory(url)
    with session_cleanup(session):
        session.add(Task("t"))
        session.commit()

    assert "Current Checked out connections: 0" in manager.get_engine(url).pool.status()


def test_session_cleanup_rolls_back_and_raises(manager: SessionManager, url: str) -> None:
    """Nothing of a failed block is kept."""
    with pytest.raises(KeyboardInterrupt):
        _fail_in(manager.session_factory(url))
    with manager.session_factory(url) as session:
        assert session.query(Task).count() == 0


def _fail_in(session: Session) -> None:
    with session_cleanup(session):
        session.add(Task("t"))
        session.flush()
        raise KeyboardInterrupt


def test_create_session_gives_the_engine_and_a_maker(manager: SessionManager, url: str) -> None:
    """Sessions are transactions, although the engine commits each statement."""
    engine, maker = manager.create_session(url)
    manager.prepare_models(engine)
    with maker() as session:
        session.add(Task("t"))
        session.flush()
        session.rollback()
        left = session.query(Task).count()

    assert (engine is manager.get_engine(url), left) == (True, 0)
