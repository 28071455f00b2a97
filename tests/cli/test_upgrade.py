"""Tables are made ready, or complete, by a command."""

from __future__ import annotations

import pytest

from celery_sql_results import DatabaseBackend
from cli.run import Program
from cli.setting_up import (
    AHEAD,
    HEAD,
    PASSWORD,
    old_tables,
    role,
    run,
    shows_a_password,
    statements_of,
    table_names,
)
from legacy import RELEASES
from servers import Database
from servers.pool import on

NOTHING = f"nothing to do: the tables are at version {HEAD}\n"


def test_an_empty_database(database: Database, program: Program) -> None:
    """It shows what it will do, does it when told to, and has nothing to do afterwards."""
    dry, asked = program("upgrade", "--dry-run"), program("upgrade")
    before = table_names(database)
    done, again = program("upgrade", "--yes"), program("upgrade")

    assert [each.code for each in (dry, asked, done, again)] == [0, 2, 0, 0]
    assert before == set()
    assert done.text == f"{dry.text}the tables are at version {HEAD} (before: none)\n"
    assert again.text == NOTHING
    assert "--yes" in asked.told
    assert "Nothing was done" in asked.told


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize("release", RELEASES)
def test_tables_of_an_older_celery(database: Database, results: Program, release: str) -> None:
    """What --sql shows does the same when somebody else runs it."""
    old_tables(database, release)
    shown = results("upgrade", "--sql")
    run(database, statements_of(shown))

    assert (shown.code, "content_type VARCHAR(155)" in shown.text) == (0, True)
    assert results("upgrade").text == NOTHING


@on("postgresql", "mariadb", "sqlite")
def test_an_upgrade_of_older_tables(database: Database, results: Program) -> None:
    """Done at once, as JSON says."""
    old_tables(database, "5.4.0")
    found = results("upgrade", "--yes", "--json").json

    assert found == [{"before": "", "after": HEAD, "is_ahead": False}]
    assert results("upgrade").text == NOTHING


@on("postgresql", "sqlite")
@pytest.mark.parametrize(("typed", "code", "made"), [(b"y\n", 0, True), (b"n\n", 2, False), (b"\n", 2, False)])
def test_a_person_is_asked(database: Database, results: Program, typed: bytes, code: int, made: bool) -> None:
    """On a terminal, and nothing is done without a yes."""
    ended = results.on_terminal("upgrade", typed=typed)

    assert (ended.code, bool(table_names(database))) == (code, made)


@on("postgresql", "mariadb", "sqlite")
def test_a_schema_ahead(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """A newer release was here: its tables are left as they are."""
    assert backend.get_state("t") == "PENDING"
    database.execute(f"UPDATE celery_taskmeta_version SET version_num = '{AHEAD}'")
    ended = results("upgrade", "--yes")

    assert (ended.code, ended.text) == (
        0,
        f"a newer release has set the tables up (version {AHEAD}): they are left as they are\n",
    )
    assert database.execute("SELECT version_num FROM celery_taskmeta_version") == [(AHEAD,)]


@on("postgresql", "mariadb")
def test_a_role_that_may_not(database: Database, results: Program) -> None:
    """It prints the SQL for somebody who may, which works."""
    program = results.but(url=role(database))
    ended = program("upgrade", "--yes")
    sql = ended.text.partition("VALUES ('0005');")[2]
    run(database, [statement for line in sql.splitlines() for statement in line.removesuffix(";").split("; ") if line])

    assert (ended.code, "could not do all of it" in ended.told) == (2, True)
    assert program("upgrade").text == NOTHING
    assert not shows_a_password(ended)


@on("postgresql", "mariadb")
@pytest.mark.parametrize("command", ["upgrade", "upgrade --sql"])
def test_a_wrong_password(database: Database, results: Program, command: str) -> None:
    """One line, without it."""
    role(database)
    url = database.server.url(database.name, user="clerk", password=f"{PASSWORD}-wrong")
    ended = results.but(url=url)(*command.split())

    assert (ended.code, len(ended.told.splitlines()), ended.text) == (2, 1, "")
    assert not shows_a_password(ended)


def test_the_database_is_away(database: Database, results: Program) -> None:
    """One line."""
    if database.kind == "sqlite":
        url = f"sqlite:////nowhere/{database.name}"
    else:
        url = database.url.replace(f":{database.server.port}/", ":1/")
    ended = results.but(url=url)("upgrade", "--yes")

    assert (ended.code, len(ended.told.splitlines()), ended.text) == (2, 1, "")


@on("postgresql")
def test_an_index_that_was_broken_off(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """What PostgreSQL has left of it is dropped, and the index created."""
    assert backend.get_state("t") == "PENDING"
    name = "ix_celery_taskmeta_date_done"
    database.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass")
    before, shown = results("check").code, results("upgrade", "--indexes", "--dry-run")
    done = results("upgrade", "--indexes", "--yes")

    assert [each.partition(name)[0] for each in statements_of(shown)] == [
        "DROP INDEX CONCURRENTLY ",
        "CREATE INDEX CONCURRENTLY ",
    ]
    assert (before, done.code, done.lines[-1]) == (1, 0, "2 of 2 statements on indexes were run")
    assert (results("check").code, results("upgrade", "--indexes").text) == (0, NOTHING)


@on("postgresql", "mariadb")
def test_indexes_that_a_role_may_not_create(database: Database, backend: DatabaseBackend, results: Program) -> None:
    """It prints the statements for somebody who may, which work."""
    assert backend.get_state("t") == "PENDING"
    database.execute(f"DROP INDEX ix_celery_taskmeta_date_done{' ON celery_taskmeta' * (database.kind == 'mariadb')}")
    clerk = results.but(url=role(database))
    ended = clerk("upgrade", "--indexes", "--yes")
    run(database, statements_of(clerk("upgrade", "--indexes", "--sql")))

    assert (ended.code, "could not do all of it" in ended.told) == (2, True)
    assert results("upgrade", "--indexes").text == NOTHING


def test_nothing_is_made_by_looking(database: Database, program: Program) -> None:
    """A list on an empty database says what to do, and leaves it empty."""
    ended = program("list")

    assert (ended.code, "has no result tables yet: run upgrade" in ended.told, table_names(database)) == (
        2,
        True,
        set(),
    )


@on("sqlite")
def test_the_address_that_is_given_goes_before_the_environment(database: Database) -> None:
    """Celery would take CELERY_RESULT_BACKEND instead."""
    program = Program("celery-sql-results", database.url, env={"CELERY_RESULT_BACKEND": "redis://nowhere"})

    assert program("upgrade", "--yes").lines[-1] == f"the tables are at version {HEAD} (before: none)"
