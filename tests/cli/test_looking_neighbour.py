"""Nobody else's function runs as the role of whoever looks, whatever a neighbour creates in the search_path."""

from __future__ import annotations

from typing import Any

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from celery_sql_results.chords import header_of, missing_of
from celery_sql_results.models import utc_now
from celery_sql_results.payload import Readable, raised, sent
from celery_sql_results.rows.queries import BY, Arrivals, Asked, ChordQuestions, Failures, Filter, Stats, Trees, Workers
from cli.looking import fail, succeed
from cli.test_chords_command import some_chords
from cli.test_workers import long_ago, run_of, started
from conformance.neighbour import SCHEMA, set_traps, sprung
from servers import Database
from servers.pool import on
from support import Backends, of_session

FILTERS = (Filter(name="shop.*", queue="*", longer=0.0, exception="V*"), Filter(states=(states.FAILURE,)), Filter())


def questions(backend: DatabaseBackend) -> list[Any]:
    """All that people ask, but for pages of results and for one."""
    of, since = backend.database, long_ago()
    tables = of.models.tables_for(of.impl)
    asked = Asked(of.engine, of.impl, of.models, {each: frozenset(each.columns.keys()) for each in tables}, 10)
    chords, workers, read = ChordQuestions(asked, header_of, missing_of), Workers(asked), Readable("json")
    trees = Trees(asked, lambda row: sent(read(row, "children")))
    arrivals, new = Arrivals(asked, Filter(), since), Arrivals(asked, Filter(), None)
    found: list[Any] = [chords.stuck(10, 0), chords.opened(2), chords.like("a", 3), chords.members(chords.opened(9))]
    found += [chords.opened(2, 0, chords.opened(1)[0]), workers.runs(9), workers.without_row(since, 9)]
    found += [workers.lost(Filter(), 9)]
    found += [trees.of("a"), trees.of("c"), list(arrivals.look()), list(arrivals.look()), list(new.look())]
    for which in FILTERS:
        found += [Failures(asked, raised).grouped(which).read, asked.sizes()]
        found += [len(Stats(asked).of(which, by, since, utc_now()).figures) for by in BY]
    return found


@on("postgresql")
@pytest.mark.parametrize("path", [f"public,{SCHEMA}", f"{SCHEMA},public"], ids=["after", "before"])
def test_no_function_of_a_neighbour_is_called(
    database: Database, backends: Backends, backend: DatabaseBackend, path: str
) -> None:
    some_chords(backend)
    succeed(backend, "a", group="g")
    fail(backend, "c", ValueError("no"), root_id="a", parent_id="a")
    run_of(backend, "gone", date_seen=long_ago())
    started(backend, "lost", "gone", 600)
    with database.statements() as statements:
        expected = questions(backend)
    database.execute(f"CREATE SCHEMA {SCHEMA}")
    count = set_traps(database, statements)
    found = questions(backends(database_engine_options=of_session(database.url, search_path=path)))

    assert sprung(database) == []
    assert len(found) == len(expected)
    assert count > 1000
