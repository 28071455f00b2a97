"""Where there is trouble with the database, a command ends with one line that says so, and has changed nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from celery_sql_results import DatabaseBackend
from cli.rows import put, row
from cli.run import Program
from servers import Database
from servers.pool import on

SECRET = "s3cr3t-of-the-test"
#: Two commands that look.
LOOKS = (("list",), ("show", "1111"))
real = on("postgresql", "mariadb", "sqlite")


def tables(database: Database) -> list[str]:
    """The names of all tables of a database."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    return sorted(sa.inspect(engine).get_table_names())


@real
def test_an_empty_database(program: Program, database: Database) -> None:
    """Nothing is made by looking."""
    ended = [program(*look) for look in LOOKS]

    assert [(each.code, each.out) for each in ended] == [(2, b""), (2, b"")]
    assert all("has no result tables yet: run upgrade, or start a worker" in each.told for each in ended)
    assert tables(database) == []


@on("sqlite")
def test_a_file_that_is_not_there(results: Program, tmp_path: Path) -> None:
    """An empty one may be made by SQLite itself, but no table in it."""
    ended = results.but(url=f"sqlite:///{tmp_path}/none.db")("list")

    assert (ended.code, ended.told.count("\n")) == (2, 1)


@on("postgresql", "mariadb")
def test_a_wrong_password(results: Program, database: Database) -> None:
    """It is refused, and never shown, also not with all of the error."""
    database.server.create_role(f"reader_{database.name}", "right", database.name, ddl=False, write=False)
    url = database.server.url(database.name, user=f"reader_{database.name}", password=SECRET)

    ended = [results.but(url=url)("list", *options) for options in ((), ("--verbose",))]

    assert (ended[0].code, ended[0].told.count("\n"), ended[0].out) == (2, 1, b"")
    assert not any(SECRET in each.told or SECRET in each.text for each in ended)


@pytest.mark.parametrize("program_name", ["celery", "celery-sql-results"])
@on("postgresql", "mariadb")
def test_a_database_that_is_away(results: Program, database: Database, program_name: str) -> None:
    """One line, at once, without the password."""
    host = database.server.url(database.name, user="somebody", password=SECRET)
    url = host.replace(f":{database.server.port}/", ":1/")

    ended = results.but(url=url, name=program_name)("list")

    assert (ended.code, ended.told.count("\n"), ended.out, SECRET in ended.told) == (2, 1, b"", False)


@on("postgresql", "mariadb")
def test_a_role_that_may_only_read(results: Program, database: Database, backend: DatabaseBackend) -> None:
    """That is all that it takes to look."""
    put(backend, row("1111"))
    name = f"reader_{database.name}"
    database.server.create_role(name, SECRET, database.name, ddl=False, write=False)
    program = results.but(url=database.server.url(database.name, user=name, password=SECRET))

    listed, shown = program("list", "--json"), program("show", "1111", "--json")

    assert (listed.code, listed.told, [each["task_id"] for each in listed.json]) == (0, "", ["1111"])
    assert (shown.code, shown.told, shown.json[0]["result"]) == (0, "", 3)


@on("postgresql")
def test_a_role_that_may_not_read(results: Program, database: Database, backend: DatabaseBackend) -> None:
    """It is told what to ask for."""
    put(backend, row("1111"))
    name = f"stranger_{database.name}"
    database.server.create_role(name, SECRET, database.name, ddl=False, write=False)
    database.execute(f'REVOKE ALL ON celery_taskmeta FROM "{name}"')

    ended = results.but(url=database.server.url(database.name, user=name, password=SECRET))("list")

    assert (ended.code, ended.told) == (2, "Error: this role may not read celery_taskmeta: see grants\n")


@real
def test_a_newer_release_was_here(results: Program, database: Database, backend: DatabaseBackend) -> None:
    """Its tables are used as they are, and nothing says otherwise."""
    put(backend, row("1111"))
    database.execute("UPDATE celery_taskmeta_version SET version_num = '9999'")
    database.execute("ALTER TABLE celery_taskmeta ADD COLUMN of_tomorrow INTEGER")

    listed, shown = results.here("list", "--json"), results.here("show", "1111", "--json")

    assert ([each["task_id"] for each in listed.json], shown.json[0]["result"]) == (["1111"], 3)
    assert database.execute("SELECT version_num FROM celery_taskmeta_version") == [("9999",)]


@real
def test_an_older_release_was_here(results: Program, database: Database, backend: DatabaseBackend) -> None:
    """What its tables lack is not shown, and not added."""
    put(backend, row("1111"))
    engine = sa.create_engine(database.url, poolclass=NullPool)
    with engine.connect() as connection:
        for name in ("group_id", "date_started", "worker"):
            for index in sa.inspect(connection).get_indexes("celery_taskmeta"):
                if name in index["column_names"]:
                    connection.execute(sa.schema.DropIndex(sa.Index(index["name"], backend.models.task.c.id)))
            connection.exec_driver_sql(f"ALTER TABLE celery_taskmeta DROP COLUMN {name}")
        connection.commit()

    [listed] = results.here("list", "--json").json
    nobody = results.here("list", "--worker", "celery@shop-1", "--json")

    assert (listed["task_id"], listed["worker"], listed["runtime"], listed["group_id"]) == ("1111", None, None, None)
    assert (nobody.code, nobody.out) == (0, b"")


@on("sqlite")
def test_calls_that_are_wrong(results: Program) -> None:
    """They are refused by a line or two, and no database is asked."""
    away = results.but(url="postgresql+psycopg://nobody@127.0.0.1:1/none", name="celery-sql-results")
    calls = (("list", "--since", "yesterday"), ("list", "--min-runtime", "x"), ("show",), ("nothing",), ("list", "--x"))

    assert [away(*call).code for call in calls] == [2] * len(calls)
    assert away.but(CELERY_RESULTS_DATABASE_URL="")("list").told == (
        "Error: no result_backend is set: name the app (celery -A proj results …), or the database "
        "(celery-sql-results --database-url …, or CELERY_RESULTS_DATABASE_URL)\n"
    )
