"""The backend works with the rights that it is given, and says what to run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from celery import states
from celery.result import AsyncResult, GroupResult
from sqlalchemy.pool import NullPool

from celery_sql_results import DatabaseBackend, SchemaError
from legacy import RELEASES, tables
from servers import Database
from servers.pool import needs, on
from support import Backends, app_on, request

databases = on("postgresql", "mariadb")
PASSWORD = "sec:ret"


@pytest.fixture
def clerk(database: Database) -> str:
    """The URL of a role that may use the tables of the database, but neither create nor alter any."""
    database.server.create_role("clerk", PASSWORD, database.name, ddl=False)
    return database.server.url(database.name, user="clerk", password=PASSWORD)


def works(backend: DatabaseBackend) -> bool:
    """Whether tasks and groups are stored, found and deleted."""
    backend.store_result("t", {"a": 1}, states.SUCCESS, request=request())
    group = GroupResult("g", [AsyncResult("t", app=backend.app)], app=backend.app)
    group.save()
    found = backend.get_result("t"), backend.restore_group("g"), next(iter(backend.get_many(["t"], timeout=0)))[0]
    backend.forget("t")
    backend.delete_group("g")
    return found == ({"a": 1}, group, "t") and not backend.task_result_exists("t")


def old_tables(database: Database, release: str) -> None:
    """The empty tables of a release."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    tables(release, engine)
    engine.dispose()


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package warned of, without the threads that still look for what other tests awaited."""
    names = ("celery_sql_results.services", "celery_sql_results.writing.retry", "celery_sql_results.schema.prepare")
    ours = (record for record in caplog.records if record.name in names)
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def statements_in(message: str, before: str) -> list[str]:
    """The SQL that a message holds after some words: one line for each table."""
    return re.split(r";\s", message.partition(before)[2].removesuffix(";"))


@databases
def test_on_full_tables(database: Database, backends: Backends, clerk: str, caplog: pytest.LogCaptureFixture) -> None:
    """No warning, no statement that fails."""
    backends()
    backend = backends(clerk, result_extended=True)

    assert works(backend)
    assert complaints(caplog) == []
    assert database.errors() == []


@databases
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("extended", [False, True])
def test_on_tables_of_an_older_celery(
    database: Database,
    backends: Backends,
    clerk: str,
    release: str,
    extended: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning with the SQL, however many backends; columns that are not there are not written."""
    old_tables(database, release)

    assert all(works(backends(clerk, result_extended=extended)) for _ in range(2))
    [warning] = complaints(caplog)
    assert re.search(r"celery_taskmeta lacks .*content_type", warning)
    assert re.search(r"ALTER TABLE celery_taskmeta ADD (COLUMN )?(IF NOT EXISTS )?content_type VARCHAR\(155\)", warning)
    assert "current transaction is aborted" not in "".join(database.errors())


@databases
@pytest.mark.parametrize("release", RELEASES)
def test_the_sql_of_the_warning_works(
    database: Database, backends: Backends, clerk: str, release: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Run by somebody who may, it makes the tables complete: the next start is silent."""
    old_tables(database, release)
    backend = backends(clerk)
    [warning] = complaints(caplog)
    for statement in statements_in(warning, ":\n"):
        database.execute(statement)
    caplog.clear()
    backend.session_manager.invalidate(clerk, **backend.engine_options)

    assert works(backends(clerk, result_extended=True))
    assert complaints(caplog) == []


@databases
def test_on_no_tables(database: Database, clerk: str) -> None:
    """One clear error at start-up, with the SQL to run; what it says works."""
    with pytest.raises(SchemaError) as caught:
        _ = app_on(clerk).backend
    message = str(caught.value)
    for statement in statements_in(message, "run:\n"):
        database.execute(statement)
    backend = app_on(clerk).backend
    found = works(backend)
    backend.session_manager.invalidate(clerk, **backend.engine_options)

    assert found
    assert [word for word in (PASSWORD, "sec%3Aret") if word in message] == []


@on("postgresql")
def test_on_tables_in_a_schema_that_is_not_there(backends: Backends) -> None:
    """The error is about the schema."""
    with pytest.raises((SchemaError, sa.exc.DBAPIError), match="nowhere"):
        backends(database_table_schemas={"task": "nowhere", "group": "nowhere"})


@databases
def test_read_only(database: Database, backends: Backends) -> None:
    """Who may only read, reads, and is refused a write at once."""
    backends().store_result("t", 1, states.SUCCESS)
    database.server.create_role("guest", PASSWORD, database.name, ddl=False, write=False)
    guest = backends(database.server.url(database.name, user="guest", password=PASSWORD))

    assert guest.get_result("t") == 1
    with pytest.raises(sa.exc.DBAPIError, match="denied"):
        guest.store_result("t", 2, states.SUCCESS)


# -- each single right ---------------------------------------------------------------------------------------------

ALL_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
TABLES = (
    *("celery_taskmeta", "celery_tasksetmeta"),
    *("celery_taskmeta_chords", "celery_taskmeta_parts", "celery_taskmeta_workers"),
)
WAITERS, VERSION = "celery_taskmeta_waiters", "celery_taskmeta_version"
SEQUENCES = ("task_id_sequence", "taskset_id_sequence")
#: What a backend can do with all rights.
EVERYTHING = frozenset(("store", "read", "forget", "save", "restore", "delete", "chords", "workers", "notifications"))
#: What fails without a right on one of Celery's tables.
LOST = {
    ("celery_taskmeta", "SELECT"): {"store", "read", "forget"},
    ("celery_taskmeta", "INSERT"): {"store"},
    ("celery_taskmeta", "UPDATE"): {"store"},
    ("celery_taskmeta", "DELETE"): {"forget"},
    ("celery_tasksetmeta", "SELECT"): {"save", "restore", "delete"},
    ("celery_tasksetmeta", "INSERT"): {"save"},
    ("celery_tasksetmeta", "UPDATE"): {"save"},
    ("celery_tasksetmeta", "DELETE"): {"delete"},
    ("task_id_sequence", "USAGE"): {"store"},
    ("taskset_id_sequence", "USAGE"): {"save"},
    **{(table, right): {"chords"} for table in TABLES[2:4] for right in ALL_RIGHTS},
    **{(TABLES[4], right): {"workers"} for right in ALL_RIGHTS},
}


def abilities(backend: DatabaseBackend) -> frozenset[str]:
    """What works, and which of our own tables are used; rows `old` of a task and a group are there."""
    group = GroupResult("new", [AsyncResult("old", app=backend.app)], app=backend.app)
    tries = {
        "store": lambda: backend.store_result("new", 1, states.SUCCESS),
        "read": lambda: backend.get_result("old"),
        "forget": lambda: backend.forget("new"),
        "save": lambda: backend.save_group("new", group),
        "restore": lambda: backend.restore_group("old"),
        "delete": lambda: backend.delete_group("new"),
    }
    found = {name for name, attempt in tries.items() if _succeeds(attempt)}
    found |= {"chords"} if backend.database.rows.chords is not None else set()
    found |= {"workers"} if backend.database.rows.workers is not None else set()
    return frozenset(found | ({"notifications"} if (backend.database.rows.waiters is not None) else set()))


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except sa.exc.DBAPIError as error:
        if "denied" not in str(error):
            raise
        return False
    return True


def role_without(database: Database, right: str, name: str) -> str:
    """The URL of a role that has every right but one."""
    role = f"no_{right}_{name.removeprefix('celery_')}".lower()
    if database.kind == "postgresql":
        database.server.create_role(role, PASSWORD, database.name, ddl=False)
        of_sequences, revoked = "USAGE, SELECT, UPDATE", f"{right} ON {name}"
        if name in SEQUENCES:
            revoked = f"{of_sequences} ON SEQUENCE {name}"
        database.execute(f"REVOKE {revoked} FROM {role}")
    else:
        database.server.create_role(role, PASSWORD, "nothing", ddl=False)
        sequences = () if "sequences" in database.server.lacks else SEQUENCES
        for table in (*TABLES, VERSION, *sequences):
            rights = [each for each in ALL_RIGHTS if (table, each) != (name, right)]
            rights = ["SELECT"] if table == name and name in SEQUENCES else rights
            database.execute(f"GRANT {', '.join(rights)} ON {database.name}.{table} TO {role}")
    return database.server.url(database.name, user=role, password=PASSWORD)


@pytest.fixture
def filled(database: Database, backends: Backends) -> None:
    """Tables that are ready, with a task and a group."""
    backend = backends()
    backend.store_result("old", 1, states.SUCCESS)
    GroupResult("old", [AsyncResult("old", app=backend.app)], app=backend.app).save()


@databases
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("name", "right"), [pytest.param(*lost, id=" ".join(lost)) for lost in LOST])
def test_each_single_right(
    database: Database, backends: Backends, name: str, right: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What can work works; one warning holds the GRANT, and after that everything works without a word."""
    if name in SEQUENCES:
        needs(database, "sequences")
    assert_does_without(database, backends, name, right, caplog)


@on("postgresql")
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("right", ALL_RIGHTS)
def test_each_single_right_on_waiters(
    database: Database, backends: Backends, right: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without one, nobody is notified, and waits poll."""
    assert_does_without(database, backends, WAITERS, right, caplog)


def assert_does_without(
    database: Database, backends: Backends, name: str, right: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All but what needs the right works, and all after the GRANT that the warning holds."""
    whole = EVERYTHING if database.kind == "postgresql" else EVERYTHING - {"notifications"}
    url = role_without(database, right, name)
    backend = backends(url)

    assert abilities(backend) == whole - LOST.get((name, right), {"notifications"})
    [warning] = complaints(caplog)
    grants = statements_in(warning, ":\n")
    assert [grant.split()[0] for grant in grants] == ["GRANT"]
    database.execute(grants[0])
    caplog.clear()
    backend.session_manager.invalidate(url, **backend.engine_options)

    assert abilities(backends(url)) == whole
    assert complaints(caplog) == []


@databases
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("right", ALL_RIGHTS)
def test_the_version_needs_no_right(
    database: Database, backends: Backends, right: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the tables are complete, nobody has to know or change it."""
    backend = backends(role_without(database, right, VERSION))

    assert abilities(backend) >= EVERYTHING - {"notifications"}
    assert complaints(caplog) == []
    assert database.errors() == []


@databases
@pytest.mark.usefixtures("filled")
def test_a_role_that_may_only_read_the_tasks(
    database: Database, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts and reads, and is told once what it may not do."""
    database.server.create_role("reader", PASSWORD, database.name, ddl=False, write=False)
    if database.kind == "postgresql":
        database.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM reader")
        database.execute("GRANT SELECT ON celery_taskmeta TO reader")
    else:
        database.execute(f"REVOKE ALL PRIVILEGES ON `{database.name.replace('_', chr(92) + '_')}`.* FROM reader")
        database.execute(f"GRANT SELECT ON {database.name}.celery_tasksetmeta TO reader")
    database.execute(
        f"GRANT SELECT ON {'' if database.kind == 'postgresql' else database.name + '.'}celery_taskmeta TO reader"
    )
    backend = backends(database.server.url(database.name, user="reader", password=PASSWORD))

    assert abilities(backend) & {"store", "read", "chords", "notifications"} == {"read"}
    assert len(complaints(caplog)) == 1
