"""The text of each dialect's write."""

from __future__ import annotations

import gc
import re
import weakref

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from celery_sql_results.dialects import Put, base, impl_for
from celery_sql_results.dialects import postgresql_notify as listen
from celery_sql_results.models import models_for

MODELS = models_for()
COLUMNS = ("task_id", "status", "result", "date_done")
FINAL = ("SUCCESS",)
FINISHED = ("FAILURE", "REVOKED", "SUCCESS")
NOT_SUCCESS = "coalesce(celery_taskmeta.status, '') != 'SUCCESS'"
NOT_FINISHED = " AND ".join(f"coalesce(celery_taskmeta.status, '') != '{state}'" for state in FINISHED)
#: Fails in the row of another task, before anything of it is changed. Tables whose key is the primary one need none.
SAME_TASK = (
    "id = if(celery_taskmeta.task_id = VALUES(task_id), celery_taskmeta.id, "
    "length(VALUES(task_id)) + 1 + 18446744073709551615)"
)
SAME_GROUP = SAME_TASK.replace("task_id", "taskset_id").replace("taskmeta", "tasksetmeta")


def mysql(sequences: bool) -> Dialect:
    """The dialect of MySQL, or, with sequences, that of MariaDB as it is once it has met its server."""
    dialect = sa.create_engine("mariadb+pymysql://host/db" if sequences else "mysql+pymysql://host/db").dialect
    dialect.supports_sequences = sequences
    return dialect


def text(statement: sa.Insert | sa.Update, dialect: Dialect) -> str:
    """The statement in SQL, without the casts and the style of parameters that depend on SQLAlchemy's version."""
    compiled = re.sub(r"::[A-Z ]+(?=[,)])", "", str(statement.compile(dialect=dialect)))
    return re.sub(r"%\(\w+\)s|%s|\?", "?", compiled)


def upsert(dialect: Dialect, protected: tuple[str, ...]) -> str:
    """The upsert of a task."""
    return text(impl_for(dialect.name).upsert(Put(MODELS.task, "task_id", protected), COLUMNS), dialect)


@pytest.mark.parametrize(("protected", "guard"), [(FINAL, NOT_SUCCESS), (FINISHED, NOT_FINISHED)])
def test_postgresql_draws_the_id_in_the_statement(protected: tuple[str, ...], guard: str) -> None:
    """One statement, no RETURNING, and the guard in WHERE."""
    expected = (
        "INSERT INTO celery_taskmeta (id, task_id, status, result, date_done) "
        "VALUES (nextval('task_id_sequence'), ?, ?, ?, ?) "
        "ON CONFLICT (task_id) DO UPDATE SET "
        "status = excluded.status, result = excluded.result, date_done = excluded.date_done "
        f"WHERE {guard}"
    )

    assert upsert(postgresql.dialect(), protected) == expected


@pytest.mark.parametrize(("protected", "guard"), [(FINAL, NOT_SUCCESS), (FINISHED, NOT_FINISHED)])
def test_sqlite_counts_by_itself(protected: tuple[str, ...], guard: str) -> None:
    """The same as PostgreSQL's, without a sequence."""
    expected = (
        "INSERT INTO celery_taskmeta (task_id, status, result, date_done) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (task_id) DO UPDATE SET "
        "status = excluded.status, result = excluded.result, date_done = excluded.date_done "
        f"WHERE {guard}"
    )

    assert upsert(sqlite.dialect(), protected) == expected


@pytest.mark.parametrize("protected", [FINAL, FINISHED])
@pytest.mark.parametrize(
    ("sequences", "insert"),
    [
        (False, "(task_id, status, result, date_done) VALUES (?, ?, ?, ?)"),
        (True, "(id, task_id, status, result, date_done) VALUES (nextval(task_id_sequence), ?, ?, ?, ?)"),
    ],
)
def test_mysql_changes_the_status_last(protected: tuple[str, ...], sequences: bool, insert: str) -> None:
    """Each column has the guard, and the guard reads the status: assignments run from left to right."""
    table = "" if sequences else "celery_taskmeta."  # MariaDB reads less; MySQL's alias has columns of the same names
    stays = " OR ".join(f"{table}status = '{state}'" for state in protected)
    expected = f"INSERT INTO celery_taskmeta {insert} ON DUPLICATE KEY UPDATE " + ", ".join(
        [SAME_TASK.replace("celery_taskmeta.", table)]
        + [f"{column} = if({stays}, {table}{column}, VALUES({column}))" for column in ("result", "date_done", "status")]
    )

    assert upsert(mysql(sequences), protected) == expected


@pytest.mark.parametrize("dialect", [postgresql.dialect(), sqlite.dialect(), mysql(False)], ids=lambda d: d.name)
def test_groups_are_replaced_without_a_guard(dialect: Dialect) -> None:
    """Saving a group again replaces its members."""
    statement = impl_for(dialect.name).upsert(Put(MODELS.group, "taskset_id"), ("taskset_id", "result"))
    replacement = {"mysql": f"DUPLICATE KEY UPDATE {SAME_GROUP}, result = VALUES(result)"}.get(
        dialect.name, "CONFLICT (taskset_id) DO UPDATE SET result = excluded.result"
    )

    assert text(statement, dialect).partition(" ON ")[2] == replacement


def test_portable_update_is_guarded_and_binds_the_key_apart() -> None:
    """The same values serve the insert and the update."""
    expected = (
        "UPDATE celery_taskmeta SET status=?, result=?, date_done=? "
        f"WHERE celery_taskmeta.task_id = ? AND {NOT_SUCCESS}"
    )

    assert text(base.update(Put(MODELS.task, "task_id", FINAL), COLUMNS), sqlite.dialect()) == expected


def test_portable_insert_asks_for_nothing_back() -> None:
    """No RETURNING, also where the dialect could."""
    expected = (
        "INSERT INTO celery_taskmeta (id, task_id, status, result, date_done) "
        "VALUES (nextval('task_id_sequence'), ?, ?, ?, ?)"
    )

    assert text(base.insert(Put(MODELS.task, "task_id"), COLUMNS), postgresql.dialect()) == expected


AWAITED = Put(MODELS.task, "task_id", FINAL, MODELS.waiters)
PARTS = Put(MODELS.parts, "task_id", FINAL)


def test_postgresql_looks_for_waiters_while_it_writes() -> None:
    """In the same statement, and without a result set: the row count tells."""
    found = " ".join(text(listen.unless_awaited(AWAITED, COLUMNS), postgresql.dialect()).split())
    conflict = text(impl_for("postgresql").upsert(AWAITED, COLUMNS), postgresql.dialect()).partition(" ON ")[2]

    assert re.sub(r"CAST\(\? AS [A-Z ]+(\(\d+\))?\)", "?", found) == (
        "INSERT INTO celery_taskmeta (task_id, status, result, date_done, id) "
        "SELECT ? AS task_id, ? AS status, ? AS result, ? AS date_done, nextval('task_id_sequence') AS next_value_1 "
        "WHERE NOT (EXISTS (SELECT * FROM celery_taskmeta_waiters WHERE celery_taskmeta_waiters.awaited_id = ?)) "
        f"ON {conflict}"
    )


def test_postgresql_writes_a_part_with_its_result() -> None:
    """One statement, whose row count is that of those who wait for the result."""
    of_part = ("group_id", "task_id", "position", "status")
    found = " ".join(text(listen.with_part(AWAITED, COLUMNS, PARTS, of_part), postgresql.dialect()).split())
    put = text(impl_for("postgresql").upsert(AWAITED, COLUMNS), postgresql.dialect())
    part = text(impl_for("postgresql").upsert(PARTS, of_part), postgresql.dialect())

    assert found == (
        f"WITH part AS ({part}), put AS ({put} RETURNING celery_taskmeta.task_id) "
        "UPDATE celery_taskmeta_waiters SET date_added=celery_taskmeta_waiters.date_added "
        "FROM put WHERE celery_taskmeta_waiters.awaited_id = put.task_id"
    )


STATUS = "celery_taskmeta_parts.status"
UNLESS_SUCCESS = f"coalesce({STATUS}, '') != 'SUCCESS'"
ON_CONFLICT = f"CONFLICT (group_id, task_id, position) DO UPDATE SET status = excluded.status WHERE {UNLESS_SUCCESS}"
ON_DUPLICATE_KEY = f"DUPLICATE KEY UPDATE status = if({STATUS} = 'SUCCESS', {STATUS}, VALUES(status))"


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [(postgresql.dialect(), ON_CONFLICT), (sqlite.dialect(), ON_CONFLICT), (mysql(False), ON_DUPLICATE_KEY)],
    ids=["postgresql", "sqlite", "mysql"],
)
def test_a_key_of_several_columns_stays_as_it_is(dialect: Dialect, expected: str) -> None:
    statement = impl_for(dialect.name).upsert(PARTS, ("group_id", "task_id", "position", "status"))

    assert text(statement, dialect).partition(" ON ")[2] == expected


def test_statement_is_built_once() -> None:
    """The same columns give the same object, so that it is compiled once; it ends with its place."""
    where, upsert = Put(MODELS.task, "task_id", FINAL), impl_for("postgresql").upsert
    one, other = (where.statement(upsert, COLUMNS) for _ in range(2))
    watch = weakref.ref(one)

    assert one is other
    del where, one, other
    gc.collect()
    assert watch() is None


def test_postgresql_finds_many_by_one_array() -> None:
    """The text does not depend on the number of ids."""
    condition = impl_for("postgresql").one_of(MODELS.task.c.task_id)
    compiled = str(condition.compile(dialect=postgresql.dialect()))

    assert re.sub(r"%\(\w+\)s(::VARCHAR\[\])?", "?", compiled) == (
        "celery_taskmeta.task_id = ANY (CAST(? AS VARCHAR[]))"
    )
