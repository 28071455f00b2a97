"""A process that waits forks children that wait: each on its own, and the parent's wait goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_sql_results import DatabaseBackend
from concurrency.nursery import Nursery
from servers import Database
from servers.pool import on
from waiting.actors import until_here, wait_among_children
from waiting.conftest import Aside
from waiting.writer import Writer

CHILDREN = 4


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that others are forked from."""
    with Nursery() as nursery:
        yield nursery


@on("postgresql", "psycopg2", "mariadb", "sqlite")
def test_children_wait_and_the_parent_waits_on(
    database: Database, backend: DatabaseBackend, writer: Writer, aside: Aside, nursery: Nursery
) -> None:
    """The parent is forked in the middle of a wait, with its thread and its connection for notifications."""
    backend.states_of(["warm"])
    ended = aside(nursery.at_once, [(wait_among_children, (database.url, CHILDREN))])
    until_here(backend, "parent", *(f"child-{number}" for number in range(CHILDREN)))
    writer.store("child", "for the children")
    until_here(backend, "still")
    writer.store("parent", "for the parent")
    until_here(backend, "again")
    writer.store("again", "once more")
    (outcome,) = ended.result()

    assert (outcome.error, outcome.complaints) == ("", [])
    assert outcome.value == ["for the parent", "once more", *["for the children"] * CHILDREN]
    assert database.errors() == []
