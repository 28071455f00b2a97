"""`failures`: what failed, grouped by exception and task."""

from __future__ import annotations

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from celery_sql_results.payload import raised
from celery_sql_results.rows.queries import Asked, Failures, Filter
from cli.looking import HOSTILE, fail, is_tame, look, succeed, through
from servers import Database
from servers.pool import on
from support import Backends

__all__ = ["through"]  # a fixture


def some_failures(backend: DatabaseBackend) -> None:
    """Three of one kind, of two tasks; one of another; one task that was well."""
    fail(backend, "a", ValueError("one"))
    fail(backend, "b", ValueError("two"))
    fail(backend, "c", ValueError("three"), task="shop.ship")
    fail(backend, "d", KeyError("four"))
    succeed(backend, "e")


def test_failures_are_grouped(database: Database, backend: DatabaseBackend, through: str) -> None:
    some_failures(backend)
    found = look(database, "failures", "--json", through=through)
    told = [(row["count"], row["exception"], row["name"], row["task_id"], row["error"]) for row in found.rows]

    assert told == [
        (2, "ValueError", "shop.pay", "b", "ValueError: two"),
        (1, "KeyError", "shop.pay", "d", "KeyError: 'four'"),
        (1, "ValueError", "shop.ship", "c", "ValueError: three"),
    ]
    assert all(row["first"] <= row["last"] for row in found.rows)
    assert found.rows[0]["first"] < found.rows[0]["last"]
    assert (found.code, found.err) == (0, "")


@on("sqlite")
def test_tables_and_csv(database: Database, backend: DatabaseBackend) -> None:
    some_failures(backend)
    table, csv = look(database, "failures"), look(database, "failures", "--csv", "--limit=1")

    assert table.out.splitlines()[1].split()[:3] == ["2", "ValueError", "shop.pay"]
    assert csv.out.splitlines()[0] == "count,exception,name,first,last,task_id,error"
    assert csv.out.splitlines()[1].startswith("2,ValueError,shop.pay,")
    assert csv.err == "2 groups more: --limit shows them\n"


@on("postgresql", "sqlite")
def test_those_of_the_last_day_unless_somebody_asks_for_more(database: Database, backend: DatabaseBackend) -> None:
    some_failures(backend)
    database.execute("UPDATE celery_taskmeta SET date_done = '2020-01-01 00:00:00.000000' WHERE task_id <> 'd'")
    recent, before = (
        look(database, "failures", "--json"),
        look(database, "failures", "--json", "--until=2020-01-01 12:00"),
    )

    assert [row["task_id"] for row in recent.rows] == ["d"]
    assert [row["count"] for row in before.rows] == [2, 1]
    assert [row["count"] for row in look(database, "failures", "--json", "--since=2019-01-01").rows] == [2, 1, 1]


@on("postgresql", "mariadb", "sqlite")
def test_filters(database: Database, backend: DatabaseBackend) -> None:
    """Also by another state than that of a failure."""
    some_failures(backend)
    backend.store_result("f", ValueError("again"), states.RETRY)
    by_task = look(database, "failures", "--json", "--task=shop.s*", "--exception=Value*").rows
    by_state = look(database, "failures", "--json", "--state=retry", "--since=1960-01-01").rows

    assert [row["task_id"] for row in by_task] == ["c"]
    assert [(row["exception"], row["name"]) for row in by_state] == [("ValueError", None)]


@on("sqlite")
def test_nothing_failed(database: Database, backend: DatabaseBackend) -> None:
    succeed(backend, "a")
    found = look(database, "failures", "--json")

    assert (found.code, found.out, found.err) == (0, "", "no such failures\n")


def test_hostile_words(database: Database, backend: DatabaseBackend) -> None:
    """Of names, and of the last line of a traceback."""
    fail(backend, "a", ValueError(HOSTILE), task=HOSTILE)
    for form in ("--utc", "--json", "--csv"):
        found = look(database, "failures", form)
        assert is_tame(found.out)
        assert "\\x1b[31mred" in found.out or "\\u001b[31mred" in found.out


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize(("most", "expected"), [(2, (2, False)), (3, (3, False)), (4, (4, True))])
def test_it_stops_after_so_many(database: Database, backends: Backends, most: int, expected: tuple[int, bool]) -> None:
    """And says so, also where it ends between two pages."""
    backend = backends()
    some_failures(backend)
    of = backend.database
    task = of.models.task
    asked = Asked(of.engine, of.impl, of.models, {task: frozenset(task.columns.keys())}, 10)
    found = Failures(asked, raised).grouped(Filter(), most)

    assert (found.read, found.is_all) == expected
    assert sum(group.count for group in found.groups) == found.read
