"""No question reads more than it must: looked up at the servers, on a hundred thousand results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from celery_sql_results.dialects import connected
from celery_sql_results.rows.queries import Asked, Filter, Results
from celery_sql_results.schema import index_statements, look, missing_indexes
from history import NEWEST, fill, group_id, task_id
from servers.pool import ALL, Pool, or_skip
from support import app_on, close

COUNT, PAGE = 100_000, 50
#: Filters that an index serves, and how many rows may be read for a page; others are as rare as the filter itself.
SERVED = {
    "none": (Filter(), 4 * PAGE + 200),
    "state": (Filter(states=("FAILURE",)), 4 * PAGE),
    "rare states": (Filter(states=("REJECTED", "NEVER")), 4 * PAGE),
    "begun": (Filter(states=("STARTED",)), 400),
    "task of a state": (Filter(states=("FAILURE",), name="shop.pay_3"), 2_500),
    "exception": (Filter(exception="HttpError"), 2_500),
    "since": (Filter(since=NEWEST - timedelta(hours=1)), 4 * PAGE + 200),
    "until": (Filter(until=NEWEST - timedelta(days=20)), 4 * PAGE + 200),
    "root": (Filter(root=task_id(50_000)), 4 * PAGE),
    "group": (Filter(group=group_id(50_000)), 4 * PAGE),
    "parent": (Filter(parent=task_id(50_000)), 4 * PAGE),
}


@pytest.fixture(scope="module", params=[kind for kind in ALL if kind in ("postgresql", "mariadb")])
def asked(request: pytest.FixtureRequest, servers: Pool) -> Iterator[Asked]:
    """A month of results, with all indexes."""
    with or_skip(request.param), servers.database(request.param) as database:
        backend = app_on(database.url).backend
        engine, models = backend.database.engine, backend.models
        fill(engine, models, COUNT)
        with connected(engine) as connection:
            for statement in list(index_statements(connection, missing_indexes(connection, models))):
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("ANALYZE TABLE celery_taskmeta" if request.param == "mariadb" else "ANALYZE")
            tables = look(connection, models).tables
        columns = {table: found.columns for table, found in tables.items()}
        yield Asked(engine, backend.database.impl, models, columns, 60)
        close(backend)


def read(asked: Asked, which: Filter) -> int:
    """How many rows of the table the server reads for a page, as it says itself."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if "UNION ALL" in statement:
            seen.append((statement, parameters))

    sa.event.listen(asked.engine, "before_cursor_execute", note)
    Results(asked).page(which, PAGE)
    sa.event.remove(asked.engine, "before_cursor_execute", note)
    [(statement, parameters)] = seen
    is_mariadb = asked.engine.dialect.name == "mariadb" or asked.engine.dialect.name == "mysql"
    explain = "ANALYZE FORMAT=JSON " if is_mariadb else "EXPLAIN (ANALYZE, FORMAT JSON) "
    with connected(asked.engine) as connection:
        plan = connection.exec_driver_sql(explain + statement, parameters).scalar_one()
    return rows_of(json.loads(plan) if isinstance(plan, str) else plan)


def rows_of(plan: Any) -> int:
    """The rows that all looks into the table have read, those that were filtered out included."""
    if isinstance(plan, list):
        return sum(map(rows_of, plan))
    if not isinstance(plan, dict):
        return 0
    below = sum(map(rows_of, plan.values()))
    if plan.get("Relation Name") == "celery_taskmeta":
        removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        return below + int(plan["Actual Loops"] * (plan["Actual Rows"] + removed))
    if plan.get("table_name") == "celery_taskmeta":
        return below + int(plan.get("r_loops", 1) * (plan.get("r_rows") or 0))
    return below


@pytest.mark.parametrize("name", SERVED)
def test_rows_that_are_read(asked: Asked, name: str) -> None:
    """No more than so many, of a hundred thousand."""
    which, most = SERVED[name]

    assert read(asked, which) <= most


def test_what_no_index_serves(asked: Asked) -> None:
    """The test above can fail: for a task that is rare, all rows are read."""
    assert read(asked, Filter(name="never")) >= COUNT * 0.9
