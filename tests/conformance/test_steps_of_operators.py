"""The SQL that the page for operators gives works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import states
from sqlalchemy.pool import NullPool

from legacy import RELEASES, tables
from servers import Database
from servers.pool import on
from support import Backends, request

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "from-celery.md"
GRANTS_ON_POSTGRESQL, GRANTS_ON_MARIADB, *STEPS = re.findall(
    r"^```sql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
KINDS = ("postgresql", "mariadb", "sqlite")
#: More than an old table takes on MariaDB and MySQL, and in letters that latin1 lacks.
LARGE = "ж" * 50_000


def run(database: Database, sql: str) -> None:
    """Run statements as somebody who may, each by itself."""
    for statement in filter(str.strip, sql.split(";")):
        database.execute(statement)


def steps_for(database: Database) -> str:
    """The steps of an operator, on MySQL as the page changes those of MariaDB."""
    sql = STEPS[KINDS.index(database.kind)]
    if database.kind != "mariadb" or "MariaDB" in str(database.execute("SELECT version()")):
        return sql
    counted = sql.replace("MODIFY id BIGINT NOT NULL", "MODIFY id BIGINT NOT NULL AUTO_INCREMENT")
    there = {name for (name,) in database.execute("SELECT index_name FROM information_schema.statistics")}
    missing = (line.replace("IF NOT EXISTS ", "") for line in counted.splitlines() if not there & set(line.split()))
    return "\n".join(missing)


def described(engine: sa.Engine, table: str) -> tuple[dict[str, str], set[tuple[str | None, ...]]]:
    """The types of a table's columns, and the columns of its indexes."""
    inspector = sa.inspect(engine)
    columns = {column["name"]: repr(column["type"]) for column in inspector.get_columns(table)}
    return columns, {tuple(index["column_names"]) for index in inspector.get_indexes(table)}


@on(*KINDS)
@pytest.mark.parametrize("release", RELEASES)
def test_old_tables_become_like_new_ones(database: Database, backends: Backends, release: str) -> None:
    """In their types and indexes, so that they take what new ones take."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    tables(release, engine)
    backends()
    run(database, steps_for(database))
    backends(database_table_names={"task": "new", "group": "new_groups"})
    backend = backends()
    backend.store_result("t", LARGE, states.SUCCESS, request=request())

    for old, new in (("celery_taskmeta", "new"), ("celery_tasksetmeta", "new_groups")):
        assert described(engine, old) == described(engine, new)
    assert backend.get_result("t") == LARGE


@on("postgresql", "mariadb")
@pytest.mark.parametrize("waits", [True, False], ids=["put aside", "still waiting"])
def test_ids_that_are_used_up(database: Database, backends: Backends, tmp_path: Path, waits: bool) -> None:
    """A result that comes after the last id is kept in the spool, and stored when the steps are done."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    tables("5.7.0", engine)
    if database.kind == "mariadb" and "MariaDB" not in str(database.execute("SELECT version()")):
        pytest.skip("MySQL has no sequences whose last number could be used up")
    last = {"postgresql": "SELECT setval('task_id_sequence', 2147483647)"}
    database.execute(last.get(database.kind, "ALTER SEQUENCE task_id_sequence RESTART WITH 2147483648"))
    backend = backends(database_spool_dir=str(tmp_path))
    backend.store_result("t", 1, states.SUCCESS)
    kept = backend.spooled
    if waits:
        backend.replay()
    aside = [*tmp_path.glob("*/*.rejected")]
    run(database, steps_for(database))
    for path in aside:
        path.rename(path.with_suffix(""))
    backend.replay()

    assert (kept, len(aside), backend.get_result("t")) == (1, int(waits), 1)


@on("postgresql", "mariadb")
def test_the_rights_of_the_page_are_enough(
    database: Database, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """For a role that has no others: it stores, and is told of nothing."""
    backends()
    database.server.create_role("app", "secret", database.name, ddl=False, write=False)
    grants = GRANTS_ON_POSTGRESQL if database.kind == "postgresql" else GRANTS_ON_MARIADB
    pattern = database.name.replace("_", r"\_")
    run(database, grants.replace("results.*", f"`{pattern}`.*"))
    caplog.clear()
    backend = backends(database.server.url(database.name, user="app", password="secret"), result_extended=True)
    backend.store_result("t", 1, states.SUCCESS, request=request())

    assert backend.get_result("t") == 1
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []
