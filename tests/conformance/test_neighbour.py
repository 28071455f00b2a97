"""Nobody else's function runs as our role, whatever a neighbour creates in a schema of the search_path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult
from sqlalchemy import Engine, event

from celery_sql_results import DatabaseBackend
from celery_sql_results.dialects.postgresql import IS_STANDBY
from celery_sql_results.models import TASK_COLUMNS
from celery_sql_results.rows import LostRows, OpenChord, delete_chords, delete_results, delete_waiters
from chords.actors import count_in, open_chord, part
from conformance.neighbour import SCHEMA, set_traps, sprung
from conformance.test_statements import await_departure
from conformance.test_workers import run
from servers import Database
from servers.pool import on
from support import Backends, of_session, request

pytestmark = on("postgresql")

LEASE, AGO = timedelta(hours=1), timedelta(hours=-1)
#: Seconds within which a result must be there.
LONG = 20
PASSWORD = "secret"
#: What all of this package's statements would call, if their names were not qualified: those that are checked for.
CALLED = {"set_config", "timezone", "nextval", "make_interval", "generate_series", "count", "sum", "max"}
#: The same with a driver that can listen.
CALLED_TO_LISTEN = {"pg_notify", "unnest"}


def listened_to(engine: Engine) -> None:
    """Let statements go SQLAlchemy's own way: somebody listens."""
    event.listen(engine, "before_cursor_execute", lambda *_: None)


def tasks(backend: DatabaseBackend, database: Database) -> list[Any]:
    """Store, replace, read, wait, look for many, forget; and new ids that are in use already."""
    for _ in range(8):  # often enough for psycopg to prepare the statement
        backend.store_result("t", None, states.STARTED, request=request())
    backend.store_result("t", 1, states.SUCCESS, request=request())
    later = threading.Timer(0.3, backend.store_result, ("later", 2, states.SUCCESS))
    later.start()
    found = [AsyncResult("later", app=backend.app).get(timeout=LONG)]
    later.join()
    many = [f"many-{number}" for number in range(3)]
    later = threading.Timer(0.3, lambda: [backend.store_result(id_, 3, states.SUCCESS) for id_ in many])
    later.start()
    found += [meta["result"] for _, meta in backend.get_many(["t", *many], timeout=LONG)]
    later.join()
    database.execute("INSERT INTO celery_taskmeta (id) SELECT n FROM pg_catalog.generate_series(100, 130) n")
    database.execute("ALTER SEQUENCE task_id_sequence RESTART WITH 100")
    backend.store_result("taken", 4, states.SUCCESS)
    found += [backend.get_result("taken"), backend.task_result_exists("t"), backend.states_of(["t", "nobody"])]
    backend.forget("t")
    return [*found, backend.get_status("t")]


def groups(backend: DatabaseBackend) -> list[Any]:
    """Save, restore, forget."""
    group = GroupResult("g", [AsyncResult("later", app=backend.app)], app=backend.app)
    group.save()
    group.save()
    found = backend.restore_group("g", cache=False)
    backend.delete_group("g")
    return [found == group, backend.restore_group("g", cache=False)]


def chords(backend: DatabaseBackend) -> list[Any]:
    """Open, count in, with the result of a task and without, elect, join, close; look for those that are open."""
    database, rows = backend.database, backend.database.rows.chords
    assert rows is not None
    open_chord(rows, "g", b"{}")
    rows.set_size("g", 3)
    database.rows.tasks.put({**dict.fromkeys(TASK_COLUMNS), "task_id": "a", "status": "SUCCESS"}, part(task_id="a"))
    count_in(rows, part(task_id="b", position=1))
    found: list[Any] = [rows.add("g", "c"), rows.claim("g", "one", LEASE), rows.claim("g", "two", LEASE)]
    [opened] = rows.opened("", 10)
    assert isinstance(opened, OpenChord)
    found += [rows.claim_from(opened, "two", LEASE), rows.bare_body("g"), rows.members_of(["g"]), rows.parts_of(["g"])]
    rows.touch("g")
    found += [len(rows.results("g"))]
    rows.close("g", "two")
    late, strange = count_in(rows, part(task_id="late")), count_in(rows, part(group_id="strange"))
    return [*found, late is not None and late.is_dispatched, strange, rows.results("g")]


def upkeep(backend: DatabaseBackend) -> list[Any]:
    """What a worker and an operator do now and then; all is expired, and two chords that have parts."""
    of, rows = (backend.database.engine, backend.database.impl, backend.models), backend.database.rows.chords
    assert rows is not None
    for group_id in ("h", "i"):
        open_chord(rows, group_id, b"{}", size=3)
        rows.put_part(part(group_id=group_id, task_id=group_id))
        rows.put_part(part(group_id=group_id, task_id="k"))
    for task in (backend.upkeep.at_start, *backend.upkeep.tasks.values()):
        task()
    backend.cleanup()
    return [delete_results(*of, AGO), delete_chords(*of, AGO), delete_waiters(*of)]


def workers(backend: DatabaseBackend) -> list[Any]:
    """Say that one is alive, and again, and that it has ended; look who is; sweep."""
    rows = backend.database.rows.workers
    assert rows is not None
    for told in (run(), run(), run("v@host")):
        rows.seen(told)
    rows.ended("v@host", "1")
    backend.store_result("left", None, states.STARTED, request=request("left", hostname="v@host"))
    lost = LostRows(backend.database.rows.tasks)
    [left] = lost.lost(AGO)
    ended = lost.end(left, {"status": states.FAILURE})
    return [ended, [(row["name"], row["is_gone"]) for row in rows.all()], rows.sweep(AGO), rows.all()]


def life(backend: DatabaseBackend, database: Database) -> list[Any]:
    """All that a backend does, and what comes of it."""
    backend.database.rows  # noqa: B018 - the tables are made ready
    return [*tasks(backend, database), *groups(backend), *chords(backend), *upkeep(backend), *workers(backend)]


@pytest.mark.parametrize("way", [None, listened_to], ids=["quick", "sqlalchemy"])
@pytest.mark.parametrize("path", [f"public,{SCHEMA}", f"{SCHEMA},public"], ids=["after", "before"])
def test_no_function_of_a_neighbour_is_called(
    database: Database, backends: Backends, way: Callable[[Engine], None] | None, path: str
) -> None:
    """There is a trap for each function and operator that any of our statements calls, with other types."""
    how: dict[str, Any] = {"result_extended": True, "database_engine_callback": way}
    with database.statements() as statements:
        expected = life(backends(**how), database)
    database.execute("DROP SCHEMA public CASCADE")
    database.execute("CREATE SCHEMA public")
    database.execute(f"CREATE SCHEMA {SCHEMA}")
    count = set_traps(database, statements)
    options = of_session(database.url, search_path=path)
    database.execute(f"ALTER ROLE postgres IN DATABASE {database.name} SET search_path = {path}")
    found = life(backends(database_engine_options=options, **how), database)
    his = f"SELECT proname FROM pg_proc WHERE pronamespace = '{SCHEMA}'::regnamespace"
    trapped = {name for (name,) in database.execute(his)}

    assert sprung(database) == []
    assert found == expected
    assert sorted((CALLED if "+pg8000" in database.url else CALLED | CALLED_TO_LISTEN) - trapped) == []
    assert count > 1000


def test_a_server_is_asked_whether_it_is_a_standby(database: Database) -> None:
    """With an operator whose operands nobody would think of."""
    database.execute(f"CREATE SCHEMA {SCHEMA}")
    set_traps(database, [IS_STANDBY])
    database.execute(f"ALTER ROLE postgres IN DATABASE {database.name} SET search_path = public,{SCHEMA}")

    assert database.execute(IS_STANDBY) == [(False,)]
    assert sprung(database) == []


def depart(backend: DatabaseBackend, database: Database) -> None:
    """Let a backend leave, which lets the server tell what it did."""
    backend.session_manager.invalidate(backend.settings.url, **backend.engine_options)
    await_departure(database)


def test_indexes_are_used(database: Database, backends: Backends) -> None:
    """However operators are called: no table of results is read from end to end."""
    depart(backends(), database)  # who has created the indexes has read the tables for that
    backend = backends()
    database.execute(
        "INSERT INTO celery_taskmeta (id, task_id, status) "
        "SELECT nextval('task_id_sequence'), 'old-' || n, 'SUCCESS' FROM generate_series(1, 20000) n"
    )
    database.execute("ANALYZE celery_taskmeta")
    ids = [f"old-{number}" for number in range(1, 20)]
    database.execute("SELECT pg_stat_reset()")
    for _ in range(12):  # also as a prepared statement with a plan of its own
        backend.store_result("t", 1, states.SUCCESS)
        found = [backend.get_result("t"), len(list(backend.get_many(ids))), len(backend.states_of(ids))]
        backend.forget("t")
    depart(backend, database)
    read = "SELECT seq_scan, idx_scan > 40 FROM pg_stat_user_tables WHERE relname = 'celery_taskmeta'"

    assert found == [1, 19, 19]
    assert database.execute(read) == [(0, True)]


# -- who owns what is found ------------------------------------------------------------------------------------------


@pytest.fixture
def ours(database: Database) -> str:
    """The URL of the app's role, which may create its tables."""
    database.server.create_role("ours", PASSWORD, database.name, ddl=True)
    return database.server.url(database.name, user="ours", password=PASSWORD)


@pytest.fixture
def neighbour(database: Database) -> str:
    """The URL of somebody else, who may create tables as well."""
    database.server.create_role("neighbour", PASSWORD, database.name, ddl=True)
    return database.server.url(database.name, user="neighbour", password=PASSWORD)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a start has warned of; and forget it."""
    ours = [record.getMessage() for record in caplog.records if record.name == "celery_sql_results.schema.prepare"]
    caplog.clear()
    return ours


def lend(database: Database, schema: str = "public") -> None:
    """Let our role use whatever tables are there."""
    database.execute(f"GRANT USAGE ON SCHEMA {schema} TO ours")
    for kind in ("TABLES", "SEQUENCES"):
        database.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA {schema} TO ours")


def start(backends: Backends, url: str, caplog: pytest.LogCaptureFixture, **settings: Any) -> list[str]:
    """What a start that can be used warns of."""
    backend = backends(url, **settings)
    backend.store_result("t", 1, states.SUCCESS)
    assert backend.get_result("t") == 1
    backend.session_manager.invalidate(url, **backend.engine_options)
    return told(caplog)


def test_tables_of_a_neighbour_are_told(
    database: Database, backends: Backends, ours: str, neighbour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """He made them before we came; they are used. What belongs to us, or to an administrator, is no news."""
    start(backends, neighbour, caplog)
    lend(database)
    [warning] = start(backends, ours, caplog)
    database.execute("ALTER TABLE celery_taskmeta OWNER TO ours")
    [other] = start(backends, ours, caplog)
    database.execute("REASSIGN OWNED BY neighbour TO postgres")
    lend(database)

    assert "celery_taskmeta belongs to neighbour; celery_tasksetmeta belongs to neighbour; " in warning
    assert "celery_taskmeta_version belongs to neighbour. " in warning
    assert "ALTER TABLE … OWNER TO" in warning
    assert "celery_taskmeta belongs" not in other
    assert start(backends, ours, caplog) == []


def test_a_superuser_is_told_as_well(
    database: Database, backends: Backends, neighbour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """He belongs to every role, which is no reason to trust them."""
    start(backends, neighbour, caplog)

    assert "celery_taskmeta belongs to neighbour" in "".join(start(backends, database.url, caplog))


def test_roles_that_ours_belongs_to_are_trusted(
    database: Database, backends: Backends, ours: str, neighbour: str, caplog: pytest.LogCaptureFixture
) -> None:
    start(backends, neighbour, caplog)
    database.execute("GRANT neighbour TO ours")

    assert start(backends, ours, caplog) == []


@pytest.mark.parametrize("named", [True, False])
def test_the_owner_of_a_schema_that_settings_name_is_trusted(
    database: Database, backends: Backends, ours: str, neighbour: str, caplog: pytest.LogCaptureFixture, named: bool
) -> None:
    """One that was only found on the search_path is not."""
    schemas = {"task": "theirs", "group": "theirs"}
    database.execute("CREATE SCHEMA theirs AUTHORIZATION neighbour")
    start(backends, neighbour, caplog, database_table_schemas=schemas)
    lend(database, "theirs")
    found = {"database_engine_options": of_session(ours, search_path="theirs")}
    settings: dict[str, Any] = {"database_table_schemas": schemas} if named else found

    assert len(start(backends, ours, caplog, **settings)) == (0 if named else 1)


def test_a_trigger_of_a_neighbour_is_told(
    database: Database, backends: Backends, ours: str, neighbour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its function runs as whoever writes. One of our own is no news. Names are shown on one line."""
    start(backends, ours, caplog)
    for role in ("ours", "neighbour"):
        database.execute(
            f"CREATE FUNCTION by_{role}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; "
            f"ALTER FUNCTION by_{role} OWNER TO {role}; "
            f'CREATE TRIGGER "{role}\nforged" BEFORE INSERT ON celery_taskmeta EXECUTE FUNCTION by_{role}()'
        )
    [warning] = start(backends, ours, caplog)

    assert 'celery_taskmeta has a trigger, "neighbour\\nforged", whose function belongs to neighbour. ' in warning
    assert "by_ours" not in warning
    assert "belongs to ours" not in warning
