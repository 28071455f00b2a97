"""The data of older releases loads as it says."""

import pytest
import sqlalchemy as sa

from legacy import RELEASES, document, expected, load, rows_of, tables


def count(connection: sa.Connection, table: str) -> int:
    """How many rows a table holds."""
    return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()


@pytest.fixture
def connection():
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize("release", RELEASES)
def test_every_row_arrives(connection, release):
    load(release, connection)
    found = count(connection, "celery_taskmeta"), count(connection, "celery_tasksetmeta")
    assert found == (len(expected(release)["tasks"]), len(expected(release)["groups"]))


@pytest.mark.parametrize("release", RELEASES)
def test_bytes_and_timestamps_arrive_as_they_were(connection, release):
    load(release, connection)
    stored = sa.text("SELECT result, date_done FROM celery_taskmeta ORDER BY id").columns(date_done=sa.DateTime)
    kept = [(row["result"], row["date_done"]) for row in rows_of(release, "celery_taskmeta", "sqlite")]
    assert [tuple(row) for row in connection.execute(stored)] == kept


@pytest.mark.parametrize("release", RELEASES)
def test_tables_are_empty(connection, release):
    tables(release, connection)
    assert count(connection, "celery_taskmeta") == 0


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb", "mysql"])
def test_every_kind_of_database_has_its_tables(release, kind):
    statements = " ".join(document(release)["ddl"][kind])
    assert all(name in statements for name in ("CREATE TABLE celery_taskmeta", "CREATE TABLE celery_tasksetmeta"))
