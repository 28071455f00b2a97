"""What the quick path of psycopg would leave out goes SQLAlchemy's own way, which writes in one statement as well."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from celery import states
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool, QueuePool

from celery_sql_results import DatabaseBackend
from conformance.test_statements import VERBS, verbs
from servers import Database
from servers.pool import on
from support import Backends, Statements

pytestmark = [on("postgresql"), pytest.mark.drivers("psycopg")]

#: What is told of one write and one read.
WRITE_AND_READ = ["INSERT", "SELECT"]


def use(backend: DatabaseBackend, task_id: str = "t") -> Any:
    """Store a result, and read it."""
    backend.store_result(task_id, {"x": "Ü"}, states.SUCCESS)
    return backend.get_task_meta(task_id, cache=False)["result"]


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., Any]) -> Iterator[None]:
    """Somebody listens for the length of the block."""
    event.listen(target, name, listener)
    yield
    event.remove(target, name, listener)
    if target is Engine:  # SQLAlchemy goes on as if somebody listened, and later tests would have no quick path
        Engine._has_events = False


@pytest.mark.parametrize("of_all", [False, True], ids=["engine", "all engines"])
@pytest.mark.parametrize("name", ["before_cursor_execute", "after_cursor_execute"])
def test_who_begins_to_listen_is_told(
    statements: Statements, backend: DatabaseBackend, monkeypatch: pytest.MonkeyPatch, name: str, of_all: bool
) -> None:
    """Of one statement for each write, which is all that the server gets."""
    monkeypatch.setattr(Engine, "_has_events", False)  # SQLAlchemy would remember for all tests that somebody listened
    told: list[str] = []
    use(backend, "before")
    target = Engine if of_all else backend.database.engine
    with listening(target, name, lambda *args: told.append(args[2])), statements() as seen:
        use(backend)

    assert verbs(told) == verbs(seen) == WRITE_AND_READ


@pytest.mark.parametrize(("target", "name"), [("dialect", "do_execute"), ("pool", "checkout"), ("pool", "checkin")])
def test_who_listens_to_the_dialect_or_the_pool_is_told(backend: DatabaseBackend, target: str, name: str) -> None:
    told: list[str] = []
    use(backend, "before")
    with listening(backend.database.engine, name, lambda *_: told.append(name)):
        use(backend)

    assert told == [name] * 2


def test_who_listens_to_all_pools_is_told(backend: DatabaseBackend) -> None:
    told: list[str] = []
    use(backend, "before")
    with listening(Pool, "checkout", lambda *_: told.append("checkout")):
        use(backend)

    assert told == ["checkout"] * 2


def test_who_listens_to_errors_is_told(backends: Backends) -> None:
    """Of a lock that is not to be had."""
    options = {"pool_size": 1, "connect_args": {"options": "-c lock_timeout=100ms"}}
    backend = backends(database_engine_options=options, result_backend_max_retries=1)
    told: list[str] = []
    use(backend)
    listener = lambda context: told.append(type(context.original_exception).__name__)  # noqa: E731
    with listening(backend.database.engine, "handle_error", listener), backend.database.engine.connect() as other:
        other.execution_options(isolation_level="READ COMMITTED").exec_driver_sql("LOCK celery_taskmeta")
        with pytest.raises(Exception, match="cannot be reached"):
            use(backend)

    assert set(told) == {"LockNotAvailable"}


@pytest.mark.parametrize("options", [{"echo": True}, {"logging_name": "ours"}, {}], ids=str)
def test_the_log_shows_the_statements(
    backends: Backends, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    """Also where somebody switches it on later, as SQLAlchemy's documentation says."""
    backend = backends(database_engine_options=options)
    use(backend, "before")
    caplog.clear()
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        use(backend)

    assert [
        verb for verb in verbs([text for text in caplog.messages if text[0] != "["]) if verb in VERBS
    ] == WRITE_AND_READ


def test_the_log_shows_who_takes_a_connection(backend: DatabaseBackend, caplog: pytest.LogCaptureFixture) -> None:
    use(backend, "before")
    with caplog.at_level(logging.DEBUG, "sqlalchemy.pool"):
        use(backend)

    assert sum("checked out from pool" in text for text in caplog.messages) == 2


@pytest.mark.parametrize("later", [False, True])
def test_schemas_are_translated(database: Database, backends: Backends, later: bool) -> None:
    """Each tenant has tables of its own."""
    use(backends(), "ours")
    database.execute("CREATE SCHEMA tenant")
    for (table,) in database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        database.execute(f"CREATE TABLE tenant.{table} (LIKE {table} INCLUDING ALL)")
        if "version" in table:
            database.execute(f"INSERT INTO tenant.{table} SELECT * FROM {table}")
    for sequence in ("task_id_sequence", "taskset_id_sequence"):
        database.execute(f"CREATE SEQUENCE tenant.{sequence}")
    translation: Mapping[str, Any] = {"schema_translate_map": {None: "tenant"}}
    backend = backends(
        database_engine_options={"pool_size": 2, **({} if later else {"execution_options": translation})}
    )
    if later:
        backend.database.engine.update_execution_options(**translation)

    assert use(backend, "theirs") == {"x": "Ü"}
    assert database.execute("SELECT task_id FROM tenant.celery_taskmeta") == [("theirs",)]
    assert database.execute("SELECT task_id FROM celery_taskmeta") == [("ours",)]


class Own(psycopg.Connection[Any]):
    """Somebody's own connection, about which nothing is known."""


class OwnCursor(psycopg.Cursor[Any]):
    """A cursor that notes what it runs."""

    ran: list[str] = []  # noqa: RUF012 - of all of them

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Note it."""
        self.ran.append(query)
        return super().execute(query, *args, **options)


def own_connection(database: Database) -> dict[str, Any]:
    """Connections of another class."""
    url = sa.make_url(database.url)
    where = {"host": url.host, "port": url.port, "user": url.username, "dbname": url.database}
    return {"creator": lambda: Own.connect(**where)}


@pytest.mark.parametrize(
    "options",
    [
        lambda _: {"poolclass": QueuePool},
        lambda _: {"connect_args": {"prepare_threshold": 0}},
        lambda _: {"paramstyle": "format"},
        own_connection,
    ],
    ids=["poolclass", "prepare_threshold", "paramstyle", "creator"],
)
def test_whatever_the_options_of_the_engine(
    database: Database, backends: Backends, options: Callable[[Database], dict[str, Any]]
) -> None:
    backend = backends(database_engine_options=options(database))

    assert [use(backend, f"t-{number}") for number in range(8)] == [{"x": "Ü"}] * 8
    assert backend.get_status("nobody") == states.PENDING


def test_a_cursor_of_ones_own_is_used(backends: Backends) -> None:
    backend = backends(database_engine_options={"connect_args": {"cursor_factory": OwnCursor}})
    use(backend, "before")
    OwnCursor.ran.clear()
    use(backend)

    assert verbs(OwnCursor.ran) == WRITE_AND_READ


@pytest.mark.parametrize("driver", ["psycopg2", "pg8000"])
def test_other_drivers(database: Database, backends: Backends, statements: Statements, driver: str) -> None:
    """They write in one statement, too, and whoever waits is told or polls."""
    pytest.importorskip(driver)
    backend = backends(url=database.server.url(database.name, driver=driver), result_extended=True)
    use(backend, "before")
    with statements() as seen:
        found = use(backend)
    [(_, awaited)] = backend.get_many(["t"], timeout=20)

    assert (found, awaited["result"]) == ({"x": "Ü"}, {"x": "Ü"})
    assert verbs([text for text in seen if "TRANSACTION" not in text.upper()]) == WRITE_AND_READ
