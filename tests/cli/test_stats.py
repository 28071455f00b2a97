"""`stats`: how many results, how long they took, and whether that is more than before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from cli.looking import HOSTILE, is_tame, look, succeed, through
from cli.run import Program
from servers import Database
from servers.pool import on

__all__ = ["through"]  # a fixture


def put(backend: DatabaseBackend, count: int, ago: float = 60, ran: float | None = 1, **more: Any) -> None:
    """Rows of tasks that were done so many seconds ago, and waited two seconds before they ran."""
    backend.database.rows  # noqa: B018 - the tables are made ready
    done = utc_now() - timedelta(seconds=ago)
    began = None if ran is None else done - timedelta(seconds=ran)
    times = {"date_done": done, "date_started": began, "date_queued": began and began - timedelta(seconds=2)}
    row = {"status": "SUCCESS", "name": "shop.pay", "worker": "w", "queue": "q", **times, **more}
    with backend.database.engine.connect() as connection:
        ids = [{"task_id": f"{row['name']}-{ago}-{ran}-{row['status']}-{number}"[:155]} for number in range(count)]
        connection.execute(backend.models.task.insert(), [{**row, **each} for each in ids])
        connection.commit()


def some(backend: DatabaseBackend) -> None:
    """Of one task 100 results, of which five failed and took longer; of another a few, and more the day before."""
    put(backend, 94, ran=0.3)
    put(backend, 6, ran=30.0, status="FAILURE")
    put(backend, 2, name="shop.ship", ran=3.0)
    put(backend, 8, name="shop.ship", ago=25 * 3600)
    put(backend, 1, name="shop.ship", ran=1.0, status="STARTED", date_done=None)


@on("postgresql", "mariadb", "sqlite")
def test_by_task(database: Database, backend: DatabaseBackend, through: str) -> None:
    some(backend)
    pay, ship = look(database, "stats", "--json", through=through).rows
    counts = ("task", "count", "failures", "failed_percent", "open", "failures_before")

    assert [pay[name] for name in counts] == ["shop.pay", 100, 6, 6.0, 0, 0]
    assert [ship[name] for name in counts] == ["shop.ship", 2, 0, 0.0, 1, 0]
    assert (ship["per_minute"], ship["per_minute_before"]) == (round(2 / 1440, 2), round(8 / 1440, 2))
    assert pay["ran_p50"] == pytest.approx(0.3, abs=0.01)
    assert pay["ran_p95"] == pytest.approx(30, abs=0.01)
    assert pay["ran_max"] == pytest.approx(30, abs=0.01)
    assert pay["ran_total"] == pytest.approx(94 * 0.3 + 6 * 30, abs=1)
    assert pay["waited_p50"] == pytest.approx(2, abs=0.01)
    assert ship["ran_p50"] == pytest.approx(3, abs=0.01)


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize(
    ("by", "expected"),
    [("state", {"SUCCESS": 96, "FAILURE": 6, "STARTED": 0}), ("worker", {"w": 102}), ("queue", {"q": 102})],
)
def test_by_something_else(database: Database, backend: DatabaseBackend, by: str, expected: dict[str, int]) -> None:
    some(backend)

    assert {row[by]: row["count"] for row in look(database, "stats", f"--by={by}", "--json").rows} == expected


@on("postgresql", "mariadb", "sqlite")
def test_by_hour(database: Database, backend: DatabaseBackend) -> None:
    some(backend)
    put(backend, 3, ago=7260)
    found = look(database, "stats", "--by=hour", "--json").rows
    hours = [(utc_now() - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:00:00.000000Z") for ago in (7260, 60)]

    assert [(row["hour"], row["count"]) for row in found] == [(hours[0], 3), (hours[1], 102)]
    assert found[0]["per_minute"] == 0.05


@on("postgresql", "mariadb", "sqlite")
def test_hours_are_of_the_zone_of_this_machine(results: Program, backend: DatabaseBackend) -> None:
    """As all times are, unless somebody wants UTC."""
    put(backend, 1)
    hour = (utc_now() - timedelta(seconds=60)).replace(minute=0, second=0)
    tokyo = results.but(TZ="Asia/Tokyo")

    assert tokyo("stats", "--by=hour").lines[1].startswith(f"{hour + timedelta(hours=9):%Y-%m-%d %H:%M:%S}  ")
    assert tokyo("stats", "--by=hour", "--utc").lines[1].startswith(f"{hour:%Y-%m-%d %H:%M:%S}Z  ")


@on("postgresql", "mariadb", "sqlite")
def test_is_something_piling_up(database: Database, backend: DatabaseBackend) -> None:
    """The last hour against the one before."""
    put(backend, 30, ago=60)
    put(backend, 60, ago=5400)
    put(backend, 6, ago=5400, status="FAILURE")
    [found] = look(database, "stats", "--since=1h", "--json").rows

    assert (found["per_minute"], found["per_minute_before"], found["failures_before"]) == (0.5, 1.1, 6)


@on("portable")
def test_a_database_that_computes_no_times(database: Database, backend: DatabaseBackend) -> None:
    """It can count."""
    some(backend)
    found, sizes = look(database, "stats", "--json"), look(database, "stats", "--sizes", "--json")

    assert [(row["count"], row["failures"], row["ran_p95"]) for row in found.rows] == [(100, 6, None), (2, 0, None)]
    assert "how long they took is not known" in found.err
    assert (sizes.code, sizes.out, sizes.err) == (0, "", "this database does not tell sizes\n")


@on("postgresql", "mariadb", "sqlite")
def test_sizes(database: Database, backend: DatabaseBackend, through: str) -> None:
    put(backend, 3000)
    if database.kind != "sqlite":
        database.execute(
            "ANALYZE celery_taskmeta" if database.kind == "postgresql" else "ANALYZE TABLE celery_taskmeta"
        )
    found = {row["table"]: row for row in look(database, "stats", "--sizes", "--json", through=through).rows}
    task = found["celery_taskmeta"]

    assert task["bytes"] > task["index_bytes"] > 10_000
    assert "celery_taskmeta_parts" in found
    assert database.kind == "sqlite" or 2000 < task["rows"] < 4000
    assert database.kind != "sqlite" or found["(the file)"]["bytes"] >= task["bytes"]


@on("postgresql")
def test_rows_that_are_dead(database: Database, backend: DatabaseBackend) -> None:
    put(backend, 500)
    database.execute("DELETE FROM celery_taskmeta")
    database.execute("SELECT pg_stat_force_next_flush()")
    found = {row["table"]: row for row in look(database, "stats", "--sizes", "--json").rows}

    assert found["celery_taskmeta"]["dead"] == 500


@on("sqlite")
def test_tables(database: Database, backend: DatabaseBackend) -> None:
    some(backend)
    found, csv = look(database, "stats", "--limit=1"), look(database, "stats", "--csv")

    assert found.out.splitlines()[1].split()[:2] == ["shop.pay", "100"]
    assert found.err == "1 lines more: --limit shows them\n"
    assert csv.out.startswith("task,count,per_minute,per_minute_before,failures,")


@on("sqlite")
def test_nothing(database: Database, backend: DatabaseBackend) -> None:
    put(backend, 1, ago=10 * 86400)
    found = look(database, "stats")

    assert (found.code, found.err) == (0, "no such results\n")


@on("postgresql", "mariadb", "sqlite")
def test_times_that_are_odd(database: Database, backend: DatabaseBackend) -> None:
    """One that ended before it began, by a clock that was set back, one without times, and one that ran for years."""
    put(backend, 1, ran=-5.0)
    put(backend, 1, ran=None)
    put(backend, 1, ran=1e8)
    [found] = look(database, "stats", "--json").rows

    assert found["count"] == 3
    assert found["ran_max"] == pytest.approx(1e8, rel=0.001)
    assert found["ran_p95"] <= found["ran_max"]


def test_hostile_words(database: Database, backend: DatabaseBackend) -> None:
    succeed(backend, "a", task=HOSTILE)
    for form in ("--utc", "--json", "--csv"):
        found = look(database, "stats", form)
        assert is_tame(found.out)
        assert "[31mred" in found.out
