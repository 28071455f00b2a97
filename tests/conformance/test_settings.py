"""The settings of Celery's own backend at work."""

from __future__ import annotations

import pickle
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from kombu.exceptions import ContentDisallowed
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from celery_sql_results import DatabaseBackend, SessionManager, session_cleanup
from celery_sql_results.connections.quick import DirectConnection
from celery_sql_results.models import EXTENDED_COLUMNS, RECORDED_COLUMNS
from servers import Database
from servers.pool import on, without
from support import SERIALIZERS, Backends, app_on, close, request

seen_engines: list[Engine] = []


def tables(database: Database, schema: str | None = None) -> set[str]:
    """The names of the tables in a database."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    found = set(sa.inspect(engine).get_table_names(schema=schema)) - {"sqlite_sequence"}
    engine.dispose()
    return found


def expected_tables(database: Database, task: str = "celery_taskmeta") -> set[str]:
    """The table of tasks and those beside it; only PostgreSQL can notify waiters."""
    ours = ["version", "chords", "parts", "workers", *(["waiters"] if database.kind == "postgresql" else [])]
    return {task, *(f"{task}_{name}" for name in ours)}


def row(backend: DatabaseBackend, task_id: str = "t") -> dict[str, Any]:
    """All columns of a task as they are stored."""
    table = backend.models.task
    with backend.database.engine.connect() as connection:
        return dict(connection.execute(table.select().where(table.c.task_id == task_id)).mappings().one())


def connections(database: Database) -> int:
    """How many connections to the database the server knows, apart from this question's."""
    if database.kind == "mariadb":
        others = f"information_schema.processlist WHERE db = '{database.name}' AND id <> connection_id()"
    else:
        others = f"pg_stat_activity WHERE datname = '{database.name}' AND pid <> pg_backend_pid()"
    return int(database.execute(f"SELECT count(*) FROM {others}")[0][0])


def test_table_names(backends: Backends, database: Database) -> None:
    """Both are taken, and nothing else is made."""
    backend = backends(database_table_names={"task": "my_tasks", "group": "my_groups"})
    backend.store_result("t", 1, states.SUCCESS)

    assert tables(database) == expected_tables(database, "my_tasks") | {"my_groups"}
    assert database.execute("SELECT task_id FROM my_tasks") == [("t",)]


@on("postgresql", "portable")
def test_table_schemas(backends: Backends, database: Database) -> None:
    """Each table with its sequence in its own."""
    for schema in ("one", "two"):
        database.execute(f"CREATE SCHEMA {schema}")
    backend = backends(database_table_schemas={"task": "one", "group": "two"})
    backend.store_result("t", 1, states.SUCCESS)
    backend._save_group("g", _Group())
    sequences = database.execute("SELECT schemaname, sequencename FROM pg_sequences ORDER BY 1")

    assert [tables(database, schema) for schema in ("one", "two", "public")] == [
        expected_tables(database),
        {"celery_tasksetmeta"},
        set(),
    ]
    assert sequences == [("one", "task_id_sequence"), ("two", "taskset_id_sequence")]


class _Group:
    """Just enough of a group to be saved."""

    def as_tuple(self) -> Any:
        """An empty group."""
        return ["g", None], []


def test_two_apps_of_one_process_do_not_touch_each_other(backends: Backends) -> None:
    """With other names they have nothing in common, in whichever order they are made and used."""
    one = backends(database_table_names={"task": "one_tasks", "group": "one_groups"})
    two = backends(database_table_names={"task": "two_tasks", "group": "two_groups"}, result_extended=True)
    three = backends()
    for backend, value in ((one, 1), (two, 2), (three, 3)):
        backend.store_result("t", value, states.SUCCESS)
    one.forget("t")

    assert [backend.get_result("t") for backend in (one, two, three)] == [None, 2, 3]


@on("postgresql")
def test_two_apps_with_the_same_names_in_two_schemas(backends: Backends, database: Database) -> None:
    """The schema alone keeps them apart."""
    both = []
    for schema in ("one", "two"):
        database.execute(f"CREATE SCHEMA {schema}")
        both.append(backends(database_table_schemas={"task": schema, "group": schema}))
        both[-1].store_result("t", schema, states.SUCCESS)

    assert [backend.get_result("t") for backend in both] == ["one", "two"]


@on("postgresql", "mariadb")
def test_two_urls_on_one_manager(database: Database, sqlite: Database) -> None:
    """Each has its engine, its tables and its rows."""
    manager = SessionManager()
    found = []
    for url in (database.url, sqlite.url):
        session = manager.session_factory(url)
        with session_cleanup(session):
            found.append(
                (session.bind.dialect.name, session.execute(sa.text("SELECT count(*) FROM celery_taskmeta")).scalar())
            )
            session.execute(sa.text("INSERT INTO celery_taskmeta (id, task_id) VALUES (7, 'x')"))
            session.commit()
    for url in (database.url, sqlite.url):
        manager.invalidate(url)

    assert [count for _, count in found] == [0, 0]
    assert len({name for name, _ in found}) == 2


def test_create_tables_at_setup_off(backends: Backends, database: Database) -> None:
    """They appear at first use."""
    backend = backends(database_create_tables_at_setup=False)
    before = tables(database)
    state = backend.get_state("t")

    assert (before, state) == (set(), "PENDING")
    assert tables(database) == expected_tables(database) | {"celery_tasksetmeta"}


def test_create_tables_at_setup_on(backend: DatabaseBackend, database: Database) -> None:
    """They are there before anything is stored."""
    assert backend.settings.create_tables_at_setup
    assert tables(database) == expected_tables(database) | {"celery_tasksetmeta"}


@on("postgresql", "mariadb", "portable")
@pytest.mark.parametrize(("short", "expected"), [(True, 0), (False, 1)])
def test_short_lived_sessions(backends: Backends, database: Database, short: bool, expected: int) -> None:
    """Hold no connection while idle; otherwise one is kept for the next use."""
    backend = backends(database_short_lived_sessions=short)
    backend.store_result("t", 1, states.SUCCESS)
    found = backend.get_result("t")
    held = connections(database)
    while held > expected:  # the server needs a moment to let go, also of those who ask
        held = connections(database)

    assert (found, held) == (1, expected)


@on("postgresql", "mariadb")
def test_engine_options_reach_the_engine(backends: Backends) -> None:
    """Those of the pool and those of the driver."""
    options = {"pool_size": 2, "max_overflow": 0, "pool_recycle": 60}
    backend = backends(database_engine_options=options)
    pool = backend.database.engine.pool

    assert (pool.size(), pool._max_overflow, pool._recycle) == (2, 0, 60)


@on("postgresql")
def test_engine_options_reach_the_server(backends: Backends) -> None:
    """What the driver is told, the server hears."""
    backend = backends(database_engine_options={"connect_args": {"application_name": "shop"}})
    with backend.ResultSession() as session:
        assert session.execute(sa.text("SHOW application_name")).scalar() == "shop"


def test_engine_callback_sees_each_engine_once_and_first(backends: Backends) -> None:
    """Given as a function; before a connection was made."""
    seen: list[tuple[Engine, str]] = []

    def callback(engine: Engine) -> None:
        seen.append((engine, engine.pool.status()))

    first = backends(database_engine_callback=callback)
    second = backends(database_engine_callback=callback)
    for backend in (first, second):
        backend.store_result("t", 1, states.SUCCESS)

    assert [engine for engine, _ in seen] == [first.database.engine]
    assert first.database.engine is second.database.engine
    assert "Connections in pool: 0" in seen[0][1]


def note(engine: Engine) -> None:
    """A callback that has an import path."""
    seen_engines.append(engine)


def test_engine_callback_by_its_import_path(backends: Backends) -> None:
    """As it stands in a configuration file."""
    backend = backends(database_engine_callback=f"{__name__}:note")
    backend.store_result("t", 1, states.SUCCESS)

    assert [engine for engine in seen_engines if engine is backend.database.engine] == [backend.database.engine]


@without("firebird", "its dialect calls set_isolation_level() of its driver's connection, which has none")
@pytest.mark.parametrize("by", ["option", "callback"])
def test_an_isolation_level_among_execution_options(backends: Backends, by: str) -> None:
    """Would leave each statement to be rolled back; ours stays."""
    given = {"isolation_level": "SERIALIZABLE"}
    settings: dict[str, Any] = {"database_engine_options": {"execution_options": given}}
    if by == "callback":
        settings = {"database_engine_callback": lambda engine: engine.update_execution_options(**given)}
    backend = backends(**settings)
    backend.store_result("t", 1, states.SUCCESS)

    assert backend.get_task_meta("t", cache=False)["result"] == 1


@pytest.mark.drivers("psycopg")
@pytest.mark.parametrize("name", ["before_cursor_execute", "do_execute", "handle_error", "checkout", "do_connect"])
def test_whoever_listens_is_told(postgresql: Database, name: str) -> None:
    """Of what else goes past SQLAlchemy: statements and errors; who only gives passwords slows nothing down."""
    told: list[object] = []

    def listen(engine: Engine) -> None:
        event.listen(engine, name, lambda *arguments: told.append(arguments))

    backend = app_on(postgresql.url, database_engine_callback=listen).backend
    backend.store_result("t", 1, states.SUCCESS)
    told.clear()
    with backend.database.impl.connect_quickly(backend.database.engine) as connection, suppress(sa.exc.DataError):
        connection.execute(sa.select(sa.literal_column("1 / 0")), {})
    close(backend)

    assert (len(told), type(connection)) == ((0, DirectConnection) if name == "do_connect" else (1, sa.Connection))


@pytest.mark.parametrize("stamped", [["a", 5], ["a", None], 5])
@pytest.mark.parametrize("stamps", [{"a": 1}, 5])
def test_stamps_that_are_none(backends: Backends, stamped: object, stamps: object) -> None:
    """A message may hold anything: they are left out, and the outcome is stored."""
    backend = backends(result_extended=True)
    backend.store_result("t", 1, states.SUCCESS, request=request(stamped_headers=stamped, stamps=stamps))

    assert (backend.get_result("t"), backend.app.AsyncResult("t").name) == (1, "shop.pay")


def test_extended_off_stores_no_arguments_and_no_stamps(backend: DatabaseBackend) -> None:
    """Their columns are there and stay NULL."""
    stamped = {"stamped_headers": ["tenant"], "stamps": {"tenant": ["acme"]}}
    backend.store_result("t", 1, states.SUCCESS, request=request(**stamped))
    stored, only_extended = row(backend), set(EXTENDED_COLUMNS) - set(RECORDED_COLUMNS)

    assert {name: stored[name] for name in only_extended} == {"args": None, "kwargs": None, "stamps": None}


def test_extended_on(backends: Backends) -> None:
    """Everything that a worker knows of a task."""
    backend = backends(result_extended=True)
    stamped = {"stamped_headers": ["tenant"], "stamps": {"tenant": ["acme"]}}
    backend.store_result("t", 1, states.SUCCESS, request=request(**stamped))
    meta = backend.get_task_meta("t")
    expected = {
        "name": "shop.pay",
        "args": [1, "zwei"],
        "kwargs": {"currency": "€"},
        "worker": "celery@shop-1",
        "retries": 2,
        "queue": "orders",
        "parent_id": "the-parent",
        "root_id": "the-root",
        "group_id": "the-group",
        "stamped_headers": ["tenant"],
        "tenant": ["acme"],
    }

    assert {name: meta[name] for name in expected} == expected


def test_started_is_remembered(backends: Backends) -> None:
    """A later state does not forget when the task began."""
    backend = backends(result_extended=True)
    backend.store_result("t", None, states.STARTED, request=request())
    started = backend.get_task_meta("t")["date_started"]
    backend.store_result("t", 1, states.SUCCESS, request=request())
    meta = backend.get_task_meta("t")

    assert meta["date_started"] == started
    assert started <= meta["date_done"]


def test_extended_on_and_off_share_a_table(backends: Backends) -> None:
    """Turning it on needs no DDL; off again, its columns stay as they were."""
    on_, off = backends(result_extended=True), backends()
    on_.store_result("t", 1, states.STARTED, request=request())
    off.store_result("t", 2, states.SUCCESS, request=request(args=["other"]))

    assert (off.get_result("t"), on_.get_task_meta("t")["args"]) == (2, [1, "zwei"])


def test_serializers(backends: Backends) -> None:
    """A change of the setting leaves old rows readable."""
    values = {serializer: {"in": serializer, "numbers": [1, 2.5]} for serializer in SERIALIZERS}
    for serializer, value in values.items():
        writer = backends(result_serializer=serializer, accept_content=[serializer])
        writer.store_result(serializer, value, states.SUCCESS)
    for serializer in SERIALIZERS:
        reader = backends(result_serializer=serializer, accept_content=SERIALIZERS)

        assert {each: reader.get_result(each) for each in SERIALIZERS} == values


@pytest.mark.parametrize("setting", ["accept_content", "result_accept_content"])
def test_accept_content(backends: Backends, setting: str) -> None:
    """What is not accepted is refused, as a single row and among many: the error stands where the value would."""
    backends(result_serializer="yaml").store_result("t", 1, states.SUCCESS)
    backend = backends(**{setting: ["json"]})
    many = dict(backend.get_many(["t"], timeout=0))

    with pytest.raises(ContentDisallowed):
        backend.app.AsyncResult("t").get(timeout=0)
    assert [type(each["result"]) for each in (backend.get_task_meta("t"), many["t"])] == [ContentDisallowed] * 2


@pytest.mark.parametrize("compression", ["gzip", "bzip2"])
def test_compression(backends: Backends, compression: str) -> None:
    """Smaller in the row, and read by those that do not compress."""
    backends(result_compression=compression).store_result("t", "x" * 10_000, states.SUCCESS)
    reader = backends()

    assert (reader.get_result("t"), len(row(reader)["result"]) < 300) == ("x" * 10_000, True)


def test_cache_max(backends: Backends) -> None:
    """So many results are remembered, the least used goes."""
    backend = backends(result_cache_max=2)
    for task_id in "abc":
        backend.store_result(task_id, task_id, states.SUCCESS)
        backend.get_result(task_id)
        backend._forget(task_id)

    assert [backend.get_state(task_id) for task_id in "abc"] == ["PENDING", "SUCCESS", "SUCCESS"]


def test_a_backend_can_be_pickled(backends: Backends) -> None:
    """It comes back on the current app, with its URL, options and expiry."""
    backend = backends(database_engine_options={"pool_recycle": 60}, result_expires=7)
    backend.app.set_current()
    copy = pickle.loads(pickle.dumps(backend))
    backend.store_result("t", 1, states.SUCCESS)

    assert copy.get_result("t") == 1
    assert (copy.settings.url, copy.expires) == (backend.settings.url, timedelta(seconds=7))
    assert copy.engine_options == backend.engine_options


def test_sessions_are_sqlalchemys(backend: DatabaseBackend) -> None:
    """With `task_cls` and `taskset_cls`, as the manual shows."""
    backend.store_result("t", 1, states.SUCCESS)
    with session_cleanup(session := backend.ResultSession()):
        task = session.query(backend.task_cls).filter(backend.task_cls.task_id == "t").one()
        found = task.to_dict()

    assert (found["task_id"], found["status"], found["result"]) == ("t", "SUCCESS", b"1")


@pytest.mark.parametrize(("extended", "expected"), [(False, "Task"), (True, "TaskExtended")])
def test_task_cls(backends: Backends, extended: bool, expected: str) -> None:
    """Which one, says `result_extended`; it writes rows that the backend reads."""
    backend = backends(result_extended=extended)
    with session_cleanup(session := backend.ResultSession()):
        session.add(backend.task_cls("t"))
        session.commit()

    assert (backend.task_cls.__name__, backend.taskset_cls.__name__) == (expected, "TaskSet")
    assert (backend.task_result_exists("t"), backend.get_state("t")) == (True, "PENDING")


@on("postgresql")
def test_as_uri_without_password(database: Database) -> None:
    """And with it, if asked for."""
    database.server.create_role("clerk", "sec%ret", database.name, ddl=True)
    url = database.server.url(database.name, user="clerk", password="sec%ret") + "?application_name=shop"
    backend = app_on(url).backend
    shown, whole, represented = backend.as_uri(), backend.as_uri(include_password=True), repr(backend)
    backend.session_manager.invalidate(url, **backend.engine_options)

    assert "clerk:***@" in shown
    assert whole == f"sql+{url}"
    assert [text for text in (shown, represented) if "sec" in text or "shop" in text] == []
