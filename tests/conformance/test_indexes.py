"""The indexes for people's questions: which are there from the beginning, which are missing, and what creates them."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from sqlalchemy.pool import NullPool

from celery_sql_results import DatabaseBackend, Task
from celery_sql_results.schema import Wanted, index_statements, missing_indexes, wanted_indexes
from legacy import RELEASES, tables
from servers import Database
from servers.pool import on
from support import Backends, app_on, request

#: Those that an operator may want.
COSTLY = [("celery_taskmeta", ("root_id",)), ("celery_taskmeta", ("group_id",))]
ALL = [
    *(("celery_taskmeta", ("date_done",)), ("celery_tasksetmeta", ("date_done",))),
    *(("celery_taskmeta", ("status", "date_done")), *COSTLY),
]
databases = on("postgresql", "mariadb", "sqlite")


def missing(backend: DatabaseBackend) -> list[Wanted]:
    """The indexes that a backend's tables lack."""
    with backend.database.engine.connect() as connection:
        return missing_indexes(connection, backend.models)


def named(found: list[Wanted]) -> list[tuple[str, tuple[str, ...]]]:
    """Of which table and columns they are."""
    return [(wanted.table.name, wanted.columns) for wanted in found]


def create(backend: DatabaseBackend) -> list[str]:
    """Create what is missing, as an operator does, and return the statements."""
    with backend.database.engine.connect() as connection:
        statements = list(index_statements(connection, missing_indexes(connection, backend.models)))
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
    return statements


def test_new_tables(backend: DatabaseBackend) -> None:
    """They have those that cost next to nothing, and lack those that are an operator's choice."""
    backend.database.rows  # noqa: B018 - the tables are made

    assert named(missing(backend)) == COSTLY
    assert [wanted.is_costly for wanted in missing(backend)] == [True, True]


def test_what_is_missing_is_created(backend: DatabaseBackend) -> None:
    """Then nothing is missing, and results are stored as before."""
    backend.database.rows  # noqa: B018 - the tables are made
    statements = create(backend)
    backend.store_result("t", None, states.STARTED, request=request())
    backend.store_result("t", 1, states.SUCCESS, request=request())

    assert len(statements) == len(COSTLY)
    assert missing(backend) == []
    assert backend.get_result("t") == 1


@databases
@pytest.mark.parametrize("release", RELEASES)
def test_on_tables_of_an_older_celery(database: Database, backends: Backends, release: str) -> None:
    """A worker makes no index on a table that is there; an operator makes all."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    tables(release, engine)
    engine.dispose()
    backend = backends()
    backend.database.rows  # noqa: B018 - the columns are added
    before = named(missing(backend))
    create(backend)

    assert [wanted for wanted in before if wanted[1] != ("date_done",)] == [
        wanted for wanted in ALL if wanted[1] != ("date_done",)
    ]
    assert missing(backend) == []


@databases
def test_tables_that_somebody_makes_by_the_metadata(database: Database, backends: Backends) -> None:
    """They have the same indexes as those that the backend makes."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    Task.metadata.create_all(engine)
    engine.dispose()

    assert named(missing(backends())) == COSTLY


def test_tables_of_other_names(backends: Backends, database: Database) -> None:
    """Each table has its own indexes, also two in one schema."""
    backends().database.rows  # noqa: B018 - the tables are made
    backend = backends(database_table_names={"task": "other_tasks", "group": "other_groups"})
    backend.database.rows  # noqa: B018 - the tables are made
    create(backend)

    assert missing(backend) == []


@on("postgresql")
def test_the_longest_names(backends: Backends) -> None:
    """Names of indexes are shortened as the database needs it, and found again."""
    names = {"task": "t" * 55, "group": "g" * 55}
    backend = backends(database_table_names=names)
    backend.database.rows  # noqa: B018 - the tables are made
    before = [columns for _, columns in named(missing(backend))]
    create(backend)

    assert before == [("root_id",), ("group_id",)]
    assert missing(backend) == []


@on("postgresql")
def test_tables_in_schemas(database: Database, backends: Backends) -> None:
    """Their indexes are looked for, and created, there."""
    database.execute("CREATE SCHEMA tenant")
    backend = backends(database_table_schemas={"task": "tenant", "group": "tenant"})
    backend.database.rows  # noqa: B018 - the tables are made
    create(backend)

    assert missing(backend) == []


@databases
def test_an_index_of_somebody_elses(database: Database, backends: Backends) -> None:
    """It serves, if it begins with the same columns and holds all rows."""
    backend = backends()
    backend.database.rows  # noqa: B018 - the tables are made
    database.execute("CREATE INDEX theirs ON celery_taskmeta (root_id, date_done)")
    if database.kind != "mariadb":
        database.execute("CREATE INDEX partial ON celery_taskmeta (group_id) WHERE group_id = 'mine'")

    assert [columns for _, columns in named(missing(backend))] == [("group_id",)]


@on("postgresql")
def test_writers_go_on_while_an_index_is_made(database: Database, backends: Backends) -> None:
    """PostgreSQL makes it concurrently. What was broken off is made anew."""
    backend = backends()
    backend.store_result("t", 1, states.SUCCESS, request=request())
    database.execute("UPDATE celery_taskmeta SET root_id = 'same', task_id = 'other'")
    create(backend)
    broken = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_celery_taskmeta_root_id'::regclass"
    database.execute(broken)
    before = named(missing(backend))
    statements = create(backend)

    assert before == COSTLY[:1]
    assert [statement.split(" ix_")[0] for statement in statements] == [
        "DROP INDEX CONCURRENTLY",
        "CREATE INDEX CONCURRENTLY",
    ]
    assert missing(backend) == []


@on("mariadb")
def test_a_server_that_cannot_let_writers_go_on_refuses(backends: Backends) -> None:
    """Rather than keep them out."""
    backend = backends()
    backend.database.rows  # noqa: B018 - the tables are made

    assert [statement.partition(") ")[2] for statement in create(backend)] == ["ALGORITHM=INPLACE LOCK=NONE"] * 2


QUESTION = "SELECT task_id FROM celery_taskmeta WHERE {} ORDER BY date_done DESC, id DESC LIMIT 50"
FAILED = "status = 'FAILURE' AND status <> 'SUCCESS'"
ANSWERS = [(FAILED, "status"), ("root_id = 'r' AND root_id <> task_id", "root_id"), ("group_id = 'g'", "group_id")]


@on("postgresql", "sqlite")
@pytest.mark.parametrize(("question", "column"), ANSWERS)
def test_questions_use_them(database: Database, backends: Backends, question: str, column: str) -> None:
    """Of a table that is large enough."""
    backend = backends()
    backend.database.rows  # noqa: B018 - the tables are made
    rows = [
        {"task_id": f"{n}", "status": "FAILURE" if n % 50 == 0 else "SUCCESS", "root_id": f"{n - n % 4}"}
        for n in range(5000)
    ]
    with backend.database.engine.connect() as connection:
        connection.execute(sa.insert(backend.models.task).inline(), rows)
        connection.commit()
    create(backend)
    database.execute("ANALYZE celery_taskmeta")

    plan = str(explained(database, QUESTION.format(question)))
    assert f"ix_celery_taskmeta_{column}" in plan


def explained(database: Database, query: str) -> list[Any]:
    """The plan of a query."""
    return database.execute(f"EXPLAIN {'QUERY PLAN ' if database.kind == 'sqlite' else ''}{query}")


def test_a_mixed_fleet_writes(database: Database, backends: Backends) -> None:
    """Celery's own backend knows nothing of our indexes."""
    if database.kind == "portable":
        pytest.skip("Celery's own backend does not know it")
    ours = backends()
    ours.database.rows  # noqa: B018 - the tables are made
    create(ours)
    theirs = app_on(database.url, "db").backend
    theirs.store_result("t", None, states.STARTED)
    theirs.store_result("t", 1, states.SUCCESS)
    theirs.ResultSession().get_bind().dispose()

    assert ours.get_state("t") == states.SUCCESS


def test_every_index_says_what_it_is_for(backend: DatabaseBackend) -> None:
    """For those who choose."""
    assert named(wanted_indexes(backend.models)) == ALL
    assert [wanted for wanted in wanted_indexes(backend.models) if not wanted.purpose] == []
