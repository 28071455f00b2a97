"""The SQL for a DBA: complete, and runnable as it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cli.run import PATIENCE, Program, environment
from cli.setting_up import run, statements_of, table_names
from servers import Database
from servers.pool import on

#: What somebody calls each kind of database.
NAMES = {"postgresql": "postgresql", "mariadb": "mariadb", "sqlite": "sqlite"}
databases = on(*NAMES)


@databases
def test_a_worker_finds_nothing_to_do(database: Database, results: Program) -> None:
    """It is run on an empty database, and upgrade has nothing to do."""
    ended = results("sql", NAMES[database.kind])
    run(database, statements_of(ended))

    assert (ended.code, ended.told) == (0, "")
    assert (results("upgrade").text, database.errors()) == ("nothing to do: the tables are at version 0005\n", [])


@databases
def test_names_of_the_settings(database: Database, results: Program) -> None:
    """Tables are called as the app calls them."""
    settings = {"database_table_names": {"task": "outcomes", "group": "sets"}}
    ended = results.but(settings=settings)("sql", NAMES[database.kind])
    run(database, statements_of(ended))

    assert table_names(database) >= {"outcomes", "sets", "outcomes_chords", "outcomes_version"}
    assert results.but(settings=settings)("upgrade").text == "nothing to do: the tables are at version 0005\n"


@on("postgresql")
def test_schemas_of_the_settings(database: Database, results: Program) -> None:
    """A schema that is not there is created as well."""
    program = results.but(settings={"database_table_schemas": {"task": "celery", "group": "celery sets"}})
    run(database, statements_of(program("sql")))

    assert program("upgrade").text == "nothing to do: the tables are at version 0005\n"


@on("postgresql")
def test_by_psql(database: Database, results: Program) -> None:
    """The server's own client takes it as it is."""
    url = database.url.replace("+psycopg", "")
    psql = ["psql", url, "--quiet", "--set=ON_ERROR_STOP=1"]
    ended = subprocess.run(psql, input=results("sql").out, capture_output=True, timeout=PATIENCE, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert results("upgrade").text == "nothing to do: the tables are at version 0005\n"


@pytest.mark.parametrize("name", ["postgresql", "mysql", "mariadb", "sqlite", "oracle"])
def test_without_a_database_and_a_driver(name: str) -> None:
    """No URL is needed, and nothing is loaded that would connect."""
    drivers = ("psycopg", "psycopg2", "pymysql", "MySQLdb", "oracledb", "cx_Oracle")
    code = f"import sys; sys.modules.update(dict.fromkeys({drivers})); from celery_sql_results.cli import main; main()"
    command = [sys.executable, "-c", code, "sql", name]
    ended = subprocess.run(command, env=environment(), capture_output=True, timeout=PATIENCE, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"INSERT INTO celery_taskmeta_version (version_num) VALUES ('0005');\n" in ended.stdout


def test_the_driver_of_the_url_is_missing() -> None:
    """The settings name the database and the tables, which is enough."""
    settings = {"database_table_names": {"task": "outcomes"}}
    program = Program("celery", "postgresql+nothing://user:secret@nowhere/db", settings)

    ended = program("sql")

    assert (ended.code, ended.told, "CREATE UNLOGGED TABLE outcomes_waiters" in ended.text) == (0, "", True)


def test_json(tmp_path: object) -> None:
    """A statement on each line."""
    found = Program("celery-sql-results", f"sqlite:///{tmp_path}/x.db")("sql", "mysql", "--json").json

    assert [next(iter(each)) for each in found] == ["sql"] * len(found)
    assert found[0]["sql"].startswith("CREATE TABLE celery_taskmeta (\n    id BIGINT NOT NULL AUTO_INCREMENT,")


def test_no_such_database() -> None:
    """One line says which there are."""
    ended = Program("celery-sql-results", "sqlite://")("sql", "postgres")

    assert (ended.code, ended.text) == (2, "")
    assert ended.told.endswith("'postgres' is no database that SQLAlchemy knows: postgresql, mysql, mariadb, sqlite\n")
