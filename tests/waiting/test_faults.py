"""What goes wrong during a wait costs time, never the result; what cannot be mended is an error, not a hang."""

from __future__ import annotations

import os
import re
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from celery import states
from celery.exceptions import TimeoutError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results import DatabaseBackend
from celery_sql_results.waiting import listening as listen
from servers import Database
from servers.pool import on
from support import Backends
from waiting.conftest import PATIENCE, Aside, everywhere, until, until_awaited, until_told
from waiting.writer import Writer

with_notifications = on("postgresql", "psycopg2")
with_a_server = on("postgresql", "psycopg2", "mariadb", "portable")
LISTENERS = "FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = current_database()"


@contextmanager
def outage(database: Database) -> Iterator[None]:
    """The server is killed before the block, and back after it."""
    database.server.kill()
    try:
        yield
    finally:
        database.server.restart()


@contextmanager
def many_open_files(number: int) -> Iterator[None]:
    """This process has some files more, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * number)), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(number)]
    try:
        yield
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings and errors of waiting."""
    names = ("celery_sql_results.waiting", "celery_sql_results.writing.outage")
    records = (record for record in caplog.records if record.name.startswith(names))
    return [record.getMessage() for record in records if record.levelname in {"WARNING", "ERROR"}]


@with_notifications
def test_a_notification_that_is_lost(
    database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside
) -> None:
    """The writer sends none, as Celery's own backend: a look from time to time finds the result."""
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_told(backend, "t")
    writer.having(database_listen=False).store("t", 1)

    assert value.result() == 1
    until(lambda: database.execute("SELECT * FROM celery_taskmeta_waiters") == [])  # the writer did not remove it


@with_notifications
def test_a_waiter_that_is_forgotten(database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """Somebody has deleted its row, so the writer notifies nobody: a look from time to time finds the result."""
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_told(backend, "t")
    database.execute("DELETE FROM celery_taskmeta_waiters")
    writer.store("t", 1)

    assert value.result() == 1


@with_notifications
@pytest.mark.usefixtures("news")
def test_a_listen_url_that_is_never_answered(
    database: Database, backends: Backends, writer: Writer, aside: Aside
) -> None:
    """As behind a firewall that drops what is sent: whoever connects there waits, and results are polled meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = make_url(database.url).set(port=silent.getsockname()[1], query={"connect_timeout": "1000"})
        backend = backends(database_listen_url=url.render_as_string(hide_password=False))
        value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
        until_awaited(backend, "t")
        connected, _address = silent.accept()
        writer.store("t", 1)

        assert value.result() == 1
        connected.close()


def stored_while_it_cannot_listen(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """A result comes when the connection for notifications could not be opened some times."""
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_awaited(backend, "t")
    until(lambda: backend.looker.looks > 100)
    writer.store("t", 1)
    assert value.result() == 1


@with_notifications
@pytest.mark.usefixtures("news")
def test_a_listen_url_that_is_wrong(
    database: Database,
    backends: Backends,
    writer: Writer,
    aside: Aside,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One warning, which names the setting, however often it is tried; results are polled."""
    monkeypatch.setattr(listen, "FIRST_RECONNECT", 0.01)
    backend = backends(
        database_listen_url=database.server.url("nowhere", driver=make_url(database.url).get_driver_name())
    )
    stored_while_it_cannot_listen(backend, writer, aside)

    assert [("database_listen_url" in complaint) for complaint in complaints(caplog)] == [True]


@with_notifications
@pytest.mark.usefixtures("news")
def test_whatever_keeps_a_connection_for_notifications_from_being_opened(
    backends: Backends,
    writer: Writer,
    aside: Aside,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as a function that fetches a password: results are polled, with one warning that names it."""
    monkeypatch.setattr(listen, "FIRST_RECONNECT", 0.001)

    def fetch(*_: object) -> None:
        raise LookupError("no password today")

    def callback(engine: sa.Engine) -> None:
        if isinstance(engine.pool, sa.NullPool):
            sa.event.listen(engine, "do_connect", fetch)

    backend = backends(database_engine_callback=callback)
    stored_while_it_cannot_listen(backend, writer, aside)

    assert [("no password today" in complaint) for complaint in complaints(caplog)] == [True]


@everywhere
def test_no_thread_to_spare(backend: DatabaseBackend, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses one: that wait fails, and the next one does not."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    backend.states_of(["warm"])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            backend.app.AsyncResult("t").get(timeout=PATIENCE)
    with ThreadPoolExecutor(1) as aside:
        value = aside.submit(backend.app.AsyncResult("t").get, timeout=PATIENCE)
        until_awaited(backend, "t")
        writer.store("t", 1)

        assert value.result() == 1


@with_notifications
@pytest.mark.usefixtures("told_only")
def test_a_connection_that_is_lost(
    database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside, caplog: pytest.LogCaptureFixture
) -> None:
    """An administrator ends it twice: what is stored meanwhile arrives, and what is stored later is made known."""
    for number in range(2):
        while_lost, later = f"lost-{number}", f"later-{number}"
        values = [aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE) for task_id in (while_lost, later)]
        until_told(backend, while_lost, later)
        assert database.execute(f"SELECT pg_terminate_backend(pid) {LISTENERS}") == [(True,)]
        writer.store(while_lost, 1)
        assert values[0].result() == 1
        until_told(backend, later)
        writer.store(later, 2)
        assert values[1].result() == 2

    assert complaints(caplog) == []


@with_a_server
@pytest.mark.usefixtures("news")
def test_a_server_that_is_restarted(
    database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed in the middle of the wait: a line then, a line after; and what is stored on its return arrives."""
    values = [aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE) for task_id in "ab"]
    until_awaited(backend, "a", "b")
    with outage(database):
        until(lambda: complaints(caplog))
    writer.store("a", 1)
    assert values[0].result() == 1
    writer.store("b", 2)
    assert values[1].result() == 2

    name = backend.as_uri()
    assert [re.sub(r"( since | after).*", "", line) for line in complaints(caplog)] == [
        f"trouble with the result database {name}",
        f"the result database {name} is well again,",
    ]


@with_notifications
@pytest.mark.usefixtures("told_only")
def test_a_restarted_server_notifies_again(
    database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside
) -> None:
    """The crash has emptied the table of waiters, so whoever waits leaves his row once more."""
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_told(backend, "t")
    with outage(database):
        until(lambda: not backend.looker.is_told("t"))
    until_told(backend, "t")
    writer.store("t", 1)

    assert value.result() == 1


@with_a_server
@pytest.mark.parametrize("timeout", [0, 0.2])
def test_timeout_while_the_server_is_down(database: Database, backend: DatabaseBackend, timeout: float) -> None:
    """Is a timeout like any other, for one result and for many."""
    backend.states_of(["warm"])
    some = backend.app.GroupResult("g", [backend.app.AsyncResult(task_id) for task_id in "ab"])
    with outage(database):
        for awaited in (backend.app.AsyncResult("t"), some):
            with pytest.raises(TimeoutError):
                awaited.get(timeout=timeout)


@with_a_server
def test_a_wait_that_begins_while_the_server_is_down(
    database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside
) -> None:
    """Goes on when the server is back."""
    backend.states_of(["warm"])
    with outage(database):
        value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
        until_awaited(backend, "t")
    writer.store("t", 1)

    assert value.result() == 1


@everywhere
def test_an_error_that_does_not_pass(database: Database, backend: DatabaseBackend, aside: Aside) -> None:
    """The table is dropped during the wait: every waiter is told, instead of waiting for ever."""
    values = [aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE) for task_id in "ab"]
    until_awaited(backend, "a", "b")
    database.execute("DROP TABLE celery_taskmeta")

    for value in values:
        with pytest.raises(SQLAlchemyError, match="celery_taskmeta"):
            value.result()
    with pytest.raises(SQLAlchemyError, match="celery_taskmeta"):
        backend.app.AsyncResult("t").get(timeout=PATIENCE)


@on("sqlite")
def test_nobody_waits_but_then_would_call_back(
    database: Database, backend: DatabaseBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """The log is told, once, however often the look fails."""
    result = backend.app.AsyncResult("t")
    result.then(lambda _result: None)
    database.execute("DROP TABLE celery_taskmeta")
    until(lambda: complaints(caplog))
    with pytest.raises(SQLAlchemyError):
        backend.app.AsyncResult("other").get(timeout=PATIENCE)

    assert [message.partition(":")[0] for message in complaints(caplog)] == [
        "nobody will be called back, looking for results has failed"
    ]


@on("sqlite")
@pytest.mark.usefixtures("told_only")
def test_a_file_that_is_locked(
    database: Database, backends: Backends, aside: Aside, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there can be no write-ahead log, whoever writes locks readers out, and the counter of changes as well."""
    url = f"sqlite:///file:{make_url(database.url).database}?vfs=unix-dotfile&uri=true"
    backend = backends(url, database_engine_options={"connect_args": {"timeout": 0.05}})
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_told(backend, "t")
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as stranger:
        stranger.exec_driver_sql("BEGIN EXCLUSIVE")
        until(lambda: complaints(caplog), "the warning")
    backend.store_result("t", 1, states.SUCCESS)

    assert value.result() == 1
    assert len(complaints(caplog)) == 2


@with_notifications
@pytest.mark.usefixtures("told_only")
def test_a_process_with_many_open_files(backend: DatabaseBackend, writer: Writer, aside: Aside) -> None:
    """More than the 1,024 that `select` can tell apart."""
    with many_open_files(1100):
        value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
        until_told(backend, "t")
        writer.store("t", 1)
        assert value.result() == 1
