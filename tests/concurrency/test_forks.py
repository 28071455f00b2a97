"""A process that has used the backend forks others that use it at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from concurrency.kin import (
    TIMES,
    Family,
    raise_children,
    raise_children_while_beginning,
    raise_children_while_busy,
)
from concurrency.nursery import Nursery, errors
from servers import Database
from servers.pool import on

CHILDREN = 8
#: A parent, which differs from others in what else it does when it forks.
Parent = Callable[[str, int], Family]


@pytest.mark.parametrize(
    ("database", "parent"),
    [
        *((kind, raise_children) for kind in ("postgresql", "mariadb", "sqlite")),
        *((kind, raise_children_while_busy) for kind in ("postgresql", "mariadb")),
        ("postgresql", raise_children_while_beginning),
    ],
    indirect=["database"],
)
def test_children_use_the_backend_of_their_parent(database: Database, nursery: Nursery, parent: Parent) -> None:
    (outcome,) = nursery.at_once([(parent, (database.url, CHILDREN))])
    assert errors([outcome]) == []
    family: Family = outcome.value
    assert family.wrong == []
    assert outcome.complaints == []
    if database.kind == "sqlite":
        assert database.execute("PRAGMA integrity_check") == [("ok",)]
    else:
        assert len({family.before, *family.children}) == CHILDREN + 1
    ((stored,),) = database.execute("SELECT COUNT(*) FROM celery_taskmeta WHERE task_id NOT LIKE 'busy-%'")
    assert stored == (CHILDREN + 2) * TIMES
    assert database.errors() == []


@on("postgresql", "mariadb")
def test_a_parent_keeps_its_connection(database: Database, nursery: Nursery) -> None:
    (outcome,) = nursery.at_once([(raise_children, (database.url, CHILDREN))])
    assert errors([outcome]) == []
    assert outcome.value.after == outcome.value.before
