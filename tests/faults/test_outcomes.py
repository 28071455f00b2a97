"""What is an outcome is stored; what is none holds nobody up; a caller's bounds are kept."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from celery import chord, states

from celery_sql_results import DatabaseBackend, ResultRefused
from concurrency.actors import quick
from faults.conftest import Apps, Backends
from faults.trouble import engine_on, locked, proxied
from servers import Database
from servers.pool import on
from support import app_on, close, of_session

#: Seconds in which what must not wait is done, however slow the machine is; what waits takes minutes.
PATIENCE = 60.0
away = on("postgresql", "mariadb")


def done(operation: Callable[[], object]) -> object:
    """What an operation returns or raises, or "waits" if it is not done in time."""
    found: list[object] = ["waits"]

    def run() -> None:
        try:
            found[0] = operation()
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            found[0] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found[0]


# -- what is no outcome ------------------------------------------------------------------------------------------


@away
@pytest.mark.parametrize("state", [states.STARTED, states.REJECTED, "PROGRESS"])
def test_a_state_that_is_no_outcome_holds_nothing_up(
    database: Database, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out, and the task runs on. Of the outage there is one line. The next one is stored again."""
    backend = app_on(database.url, database_engine_options=quick(database.url)).backend
    database.server.shutdown()
    with caplog.at_level(logging.WARNING, "celery_sql_results"):
        outcomes = [done(lambda: backend.store_result("t", {"n": 1}, state)) for _ in range(3)]
        time.sleep(1)
        outcomes += [done(lambda: backend.store_result("t", {"n": 1}, state)) for _ in range(2)]
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("celery_sql_results")]
    database.server.restart()
    backend.store_result("u", {"n": 1}, state)

    assert outcomes == [{"n": 1}] * 5
    assert [line.partition(" since ")[0] for line in lines] == [f"trouble with the result database {backend.as_uri()}"]
    assert (backend.get_state("t"), backend.get_state("u")) == (states.PENDING, state)
    close(backend)


@away
def test_a_silent_server_holds_no_task_up(database: Database) -> None:
    """It accepts connections and never answers."""
    with proxied(database) as (proxy, url):
        backend = app_on(url).backend
        proxy.silent = True
        outcomes = [done(lambda: backend.store_result("t", None, states.STARTED)) for _ in range(2)]
        proxy.silent = False
        backend.store_result("t", 1, states.SUCCESS)

        assert outcomes == [None, None]
        assert backend.get_result("t") == 1
        close(backend)


@on("postgresql", "mariadb", "sqlite")
def test_a_lock_holds_no_task_up(database: Database, backends: Backends) -> None:
    backend = backends(database.url)
    with locked(database):
        assert done(lambda: backend.store_result("t", None, states.STARTED)) is None


def test_a_value_that_cannot_be_written_is_told(database: Database, backends: Backends) -> None:
    """That is the fault of the task, and no outage."""
    with pytest.raises(Exception, match="not JSON serializable"):
        backends(database.url).store_result("t", object(), "PROGRESS")


# -- the bounds of a caller --------------------------------------------------------------------------------------


@away
def test_a_read_does_not_wait_for_the_spool(database: Database, backend: DatabaseBackend) -> None:
    """What waits there is locked by somebody else, and others can still be read."""
    database.server.shutdown()
    backend.store_result("kept", 1, states.SUCCESS)
    database.server.restart()
    with engine_on(database).connect() as stranger:
        stranger.exec_driver_sql("SELECT * FROM celery_taskmeta")
        with locked(database):
            read = done(lambda: backend.get_task_meta("before", cache=False)["result"])

    assert read == 0


@away
def test_as_often_as_celery_wants(database: Database) -> None:
    """The main process of a worker asks for a result at most three times more, whatever the settings say."""
    backend: Any = app_on(
        database.url, database_engine_options=quick(database.url), result_backend_max_retries=math.inf
    ).backend
    database.server.shutdown()
    found = done(lambda: backend._ensure_retryable(backend._get_task_meta_for, task_id="t", max_retries=3))
    database.server.restart()

    assert type(found).__name__ == "BackendGetMetaError"
    close(backend)


@away
def test_an_app_starts_although_retries_have_no_end(database: Database) -> None:
    """The tables are prepared at first use then."""
    database.server.shutdown()
    settings = {"database_engine_options": quick(database.url), "result_backend_max_retries": math.inf}
    found = done(lambda: app_on(database.url, **settings).backend)
    database.server.restart()
    assert isinstance(found, DatabaseBackend)
    found.store_result("t", 1, states.SUCCESS)

    assert found.get_result("t") == 1
    close(found)


@pytest.mark.parametrize(
    "setting",
    ["result_backend_max_retries", "result_backend_always_retry", "result_serializer", "accept_content"],
)
def test_none_asks_for_the_default(sqlite: Database, setting: str) -> None:
    """As the docs have it. Nothing else would keep a result over a short lock."""
    usual, asked = app_on(sqlite.url).backend, app_on(sqlite.url, **{setting: None}).backend
    close(usual)
    close(asked)

    assert asked.settings == usual.settings


# -- first use ---------------------------------------------------------------------------------------------------


def add(numbers: list[int]) -> int:
    """The body of a task."""
    return sum(numbers)


def add_to_none(app: Any) -> None:
    """Add a part to a chord that was not begun here: the database says so."""
    with suppress(NotImplementedError):
        app.backend.add_to_chord("g", app.AsyncResult("t"))


def first_uses(app: Any) -> dict[str, Callable[[], object]]:
    """What may come first, by name."""
    app.task(name="outcomes.add")(add)
    signature = app.signature("outcomes.add", args=([1, 2],))
    return {
        "chord": lambda: chord([signature, signature], app=app)(app.signature("outcomes.add")),
        "add_to_chord": lambda: add_to_none(app),
        "sweep_chords": app.backend.sweep_chords,
        "then": lambda: app.AsyncResult("t").then(print),
        "cleanup": app.backend.cleanup,
        "save": lambda: app.GroupResult("g", [app.AsyncResult("t")]).save(),
    }


@away
@pytest.mark.parametrize("use", ["chord", "add_to_chord", "sweep_chords", "then", "cleanup", "save"])
def test_first_use_is_tried_again(database: Database, apps: Apps, use: str) -> None:
    """It makes the tables ready, which belongs to what is tried again."""
    pauses = {
        "result_backend_max_sleep_between_retries_ms": 100,
        "result_backend_max_retries": 10_000,
        "database_retry_window": PATIENCE,
    }
    app = apps(database_spool_dir=None, **pauses)
    database.server.shutdown()
    timer = threading.Timer(1.0, database.server.restart)
    timer.start()
    found = done(first_uses(app)[use])
    timer.join()

    assert not isinstance(found, Exception), found
    assert found != "waits"


# -- what is refused ---------------------------------------------------------------------------------------------

CYRILLIC = "Traceback: ошибка в строке 1"
LATIN1 = {
    "mariadb": "ALTER TABLE celery_taskmeta CONVERT TO CHARACTER SET latin1",
}


@on("mariadb")
def test_a_traceback_in_another_script(database: Database, backends: Backends) -> None:
    """In a table that Celery made with the server's character set. The value is whole, the traceback in ASCII."""
    backend = backends(database.url)
    database.execute(LATIN1[database.kind])
    backend.store_result("t", ValueError("wrong"), states.FAILURE, traceback=CYRILLIC)

    meta = backend.get_task_meta("t")
    assert (meta["status"], repr(meta["result"])) == (states.FAILURE, "ValueError('wrong')")
    assert meta["traceback"] == CYRILLIC.encode("ascii", "backslashreplace").decode()


@on("postgresql")
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_a_traceback_in_another_script_in_a_latin1_database(
    database: Database, backends: Backends, driver: str
) -> None:
    pytest.importorskip(driver)
    name = f"{database.name}_latin1"
    database.execute(f"CREATE DATABASE {name} ENCODING LATIN1 TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    url = database.server.url(name, driver=driver)
    backend = backends(url)
    backend.store_result("t", ValueError("wrong"), states.FAILURE, traceback=CYRILLIC)
    meta = backend.get_task_meta("t")
    close(backend)
    database.execute(f"DROP DATABASE {name}")

    assert (meta["status"], repr(meta["result"])) == (states.FAILURE, "ValueError('wrong')")
    assert meta["traceback"] == CYRILLIC.encode("ascii", "backslashreplace").decode()


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF octet_length(NEW.result) > 1000000 THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON celery_taskmeta FOR EACH ROW EXECUTE FUNCTION slow()
"""


@on("postgresql")
def test_what_takes_too_long_for_its_size_leaves_a_marker(database: Database, backends: Backends) -> None:
    """The server ends each statement after a while, and the window of retries is long."""
    backend = backends(database.url, database_engine_options=of_session(database.url, statement_timeout="500"))
    for statement in SLOW.split(";\nCREATE TRIGGER"):
        database.execute(statement if "FUNCTION slow() RETURNS" in statement else f"CREATE TRIGGER{statement}")
    found = done(lambda: backend.store_result("t", "x" * 2_000_000, states.SUCCESS))

    assert found != "waits"
    assert backend.get_state("t") == states.FAILURE
    assert isinstance(backend.get_result("t"), ResultRefused)
