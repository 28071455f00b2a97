"""Whether a database is as it should be: what is found, and the exit code for a deployment pipeline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery_sql_results import DatabaseBackend
from cli.run import Program
from cli.setting_up import AHEAD, PASSWORD, old_tables, role, shows_a_password, table_names
from servers import Database
from servers.pool import on

servers = on("postgresql", "mariadb", "sqlite")


def findings(program: Program, *arguments: str) -> list[dict[str, Any]]:
    """What check says, for programs."""
    found: list[dict[str, Any]] = program("check", "--json", *arguments).json
    return found


def wrong(program: Program, *arguments: str) -> dict[str, str]:
    """What is wrong, by what it is about."""
    return {each["about"]: each["found"] for each in findings(program, *arguments) if each["level"] == "wrong"}


def advised(program: Program) -> dict[str, str]:
    """What is advice, by what it is about."""
    return {each["about"]: each["found"] for each in findings(program) if each["level"] == "advice"}


def test_all_is_well(program: Program, database: Database) -> None:
    """A line for each thing, and nothing is wrong."""
    made = program("upgrade", "--yes", "--indexes")
    ended = program("check")

    assert (made.code, ended.code, ended.lines[-1], ended.told) == (0, 0, "no things are wrong", "")
    assert {line.split()[0] for line in ended.lines[:-1]} <= {"ok", "advice"}


def test_an_empty_database(program: Program, database: Database) -> None:
    """What is needed and what to do is said; nothing is made by looking."""
    ended = program("check")
    line = next(line for line in ended.lines if " schema " in line)

    assert (ended.code, ended.told, table_names(database)) == (1, "", set())
    assert line.startswith("wrong   schema        version not noted; needed: version 0005; to do: run upgrade")


@servers
def test_tables_of_an_older_celery(database: Database, results: Program) -> None:
    """What each release of Celery has left is told of: columns, indexes, and on MariaDB types that lose results."""
    old_tables(database, "5.4.0")
    found = wrong(results)

    assert found["schema"] == "version not noted"
    assert "tables" in found
    assert ("columns" in found) == (database.kind == "mariadb")
    results("upgrade", "--yes", "--indexes")
    assert set(wrong(results)) == ({"columns"} if database.kind == "mariadb" else set())


@on("mariadb")
def test_the_sql_for_columns_works(mariadb: Database, results: Program) -> None:
    """What is to be done, done, nothing is left."""
    old_tables(mariadb, "5.4.0")
    results("upgrade", "--yes", "--indexes")
    for finding in findings(results):
        for statement in filter(None, finding["to_do"].split("; ") if finding["about"] == "columns" else []):
            mariadb.execute(statement)

    assert (wrong(results), "columns" in advised(results)) == ({}, False)


@on("postgresql")
def test_columns_that_cost_something_one_day(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """Ids of 32 bits and times with a zone are advice; a column that is too short is wrong."""
    assert backend.get_state("t") == "PENDING"
    for change in ("id TYPE INTEGER", "date_done TYPE TIMESTAMP WITH TIME ZONE", "worker TYPE VARCHAR(20)"):
        database.execute(f"ALTER TABLE celery_taskmeta ALTER COLUMN {change}")

    assert advised(results)["columns"] == "celery_taskmeta: id is INTEGER, date_done is TIMESTAMP WITH TIME ZONE"
    assert wrong(results) == {"columns": "celery_taskmeta: worker is VARCHAR(20)"}


@servers
def test_a_schema_ahead(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """It is used as it is."""
    assert backend.get_state("t") == "PENDING"
    database.execute(f"UPDATE celery_taskmeta_version SET version_num = '{AHEAD}'")
    found = {each["about"]: each["found"] for each in findings(results)}

    assert results("check").code == 0
    assert found["schema"] == f"version {AHEAD}, of a newer release, whose tables are used as they are"


@servers
def test_an_index_is_missing(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """And is there again after what is advised."""
    assert backend.get_state("t") == "PENDING"
    table = " ON celery_taskmeta" if database.kind == "mariadb" else ""
    database.execute(f"DROP INDEX ix_celery_taskmeta_date_done{table}")

    found = wrong(results)
    assert "has no index of date_done" in found["indexes"]
    assert results("upgrade", "--indexes", "--yes").code == 0
    assert wrong(results) == {}


@on("postgresql", "mariadb")
def test_a_role_that_may_only_read(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """It is well for a reader, and no worker."""
    assert backend.get_state("t") == "PENDING"
    reader = results.but(url=role(database, write=False))

    assert wrong(reader, "--for", "reader") == {}
    assert "INSERT" in wrong(reader)["rights"]
    assert not shows_a_password(reader("check"), reader("check", "--json"))


@on("postgresql", "mariadb")
def test_a_wrong_password(database: Database, results: Program) -> None:
    """One finding, without it."""
    role(database)
    url = database.server.url(database.name, user="clerk", password=f"{PASSWORD}-wrong")
    ended = results.but(url=url)("check")

    assert (ended.code, ended.lines[-1], ended.told) == (1, "1 thing is wrong", "")
    assert not shows_a_password(ended)


@on("postgresql")
def test_the_database_is_away(database: Database, results: Program) -> None:
    """One finding."""
    program = results.but(url=database.url.replace(f":{database.server.port}/", ":1/"))

    assert list(wrong(program)) == ["server"]
    assert program("check").code == 1


@on("sqlite")
def test_settings(database: Database, results: Program, tmp_path: Path) -> None:
    """One that is misspelt is told of, with what was meant; one that is wrong ends it."""
    results("upgrade", "--yes")
    misspelt = results.but(settings={"database_retry_windw": 5})
    broken = results.but(settings={"database_retry_window": "long"})

    assert wrong(misspelt) == {"settings": "database_retry_windw is no setting of celery-sql-results"}
    assert "did you mean database_retry_window?" in misspelt("check").text
    assert "database_retry_window is 'long'" in wrong(broken)["settings"]


@on("sqlite")
def test_a_spool(database: Database, results: Program, tmp_path: Path) -> None:
    """What waits is advice; a directory that others may write to is wrong, and all else is looked at."""
    results("upgrade", "--yes")
    own, shared = tmp_path / "own", tmp_path / "shared"
    shared.mkdir()
    os.chmod(shared, 0o777)
    good, bad = (results.but(settings={"database_spool_dir": str(path)}) for path in (own, shared))
    found = {each["about"]: each["found"] for each in findings(good)}
    next(own.iterdir()).joinpath("1.json").write_text("{}")

    assert found["spool"].startswith("no results wait in the spool ")
    assert advised(good)["spool"].startswith("1 result waits in the spool ")
    assert list(wrong(bad)) == ["spool"]


@on("postgresql")
def test_ids_and_expiry(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """How much of the ids is used, and in how many days they end; that nobody deletes what has expired."""
    backend.store_result("t", 1, "SUCCESS")
    backend.store_result("u", 1, "SUCCESS")
    for change in (
        "ALTER TABLE celery_taskmeta ALTER COLUMN id TYPE INTEGER",
        "UPDATE celery_taskmeta SET id = 2000000000, date_done = now() - interval '1 minute' WHERE task_id = 'u'",
        "UPDATE celery_taskmeta SET id = 1, date_done = now() - interval '100 days' WHERE task_id = 't'",
    ):
        database.execute(change)
    found = wrong(results.but(settings={"result_expires": 86400}))

    assert found["ids"] == (
        "93 % of the ids of celery_taskmeta are used (up to 2147483647), and at this rate the last is used in 7 days"
    )
    assert found["expiry"] == "the oldest result has expired 99 days ago"
    assert set(wrong(results)) == {"ids"}
    assert advised(results)["expiry"] == found["expiry"]


@on("postgresql")
def test_autovacuum_is_off(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """The table would grow for ever."""
    assert backend.get_state("t") == "PENDING"
    database.execute("ALTER TABLE celery_taskmeta SET (autovacuum_enabled = false)")

    assert wrong(results)["bloat"].endswith("and autovacuum is off")


@on("postgresql")
def test_strangers(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """Who owns a table decides what runs when it is used."""
    assert backend.get_state("t") == "PENDING"
    clerk = results.but(url=role(database, "clerk"))
    database.server.create_role("stranger", PASSWORD, database.name, ddl=True)
    database.execute("ALTER TABLE celery_taskmeta OWNER TO stranger")

    assert wrong(clerk) == {"owners": "celery_taskmeta belongs to stranger"}


@on("postgresql")
def test_notifications(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """That they arrive; else why results are polled."""
    assert backend.get_state("t") == "PENDING"

    def told(**settings: Any) -> str:
        found = findings(results.but(settings=settings))
        return next(each["found"] for each in found if each["about"] == "notifications")

    assert told() == "results are notified"
    assert told(database_listen=False) == "results are polled: database_listen is False"


@on("postgresql")
def test_connections(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """A pool that is larger than the server allows is advice."""
    assert backend.get_state("t") == "PENDING"
    program = results.but(settings={"database_engine_options": {"pool_size": 5000}})

    assert advised(program)["connections"].startswith("each process opens up to 5010 connections; this role may have ")
    assert program("check").code == 0
