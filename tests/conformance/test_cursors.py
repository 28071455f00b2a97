"""On PostgreSQL the cursors of the hot path are used again, but hold on to nothing large."""

from __future__ import annotations

import pytest
from celery import states

from celery_sql_results import DatabaseBackend
from celery_sql_results.dialects.direct import CURSORS, _is_light
from servers.pool import on

SMALL, LARGE = "x", "x" * 50_000


def kept(backend: DatabaseBackend) -> list[str]:
    """How the statements begin whose cursors the idle connection keeps."""
    with backend.store.engine.connect() as connection:
        return sorted(text.split()[0] for text in connection.connection.info[CURSORS])


@on("postgresql")
@pytest.mark.parametrize(("result", "expected"), [(SMALL, ["INSERT", "SELECT"]), (LARGE, [])])
def test_what_is_large_is_let_go(backend: DatabaseBackend, result: str, expected: list[str]) -> None:
    for task_id, value in {"a": SMALL, "b": result}.items():
        backend.store_result(task_id, value, states.SUCCESS)
        assert backend.get_task_meta(task_id, cache=False)["result"] == value
    assert kept(backend) == expected


@on("postgresql")
def test_lists_are_let_go(backend: DatabaseBackend) -> None:
    for task_id in "ab":
        backend.store_result(task_id, SMALL, states.SUCCESS)
    assert len(backend.states_of("ab")) == 2
    assert kept(backend) == ["INSERT"]


def test_what_psycopg2_gives_has_a_size() -> None:
    """It hands bytes out as views."""
    assert _is_light((memoryview(b"x"), "x"))
    assert not _is_light(("x", memoryview(b"x" * 50_000)))
