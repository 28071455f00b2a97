"""MySQL and MariaDB have dates that are none, and PyMySQL gives these as text: they are no times, and no errors."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from celery_sql_results import DatabaseBackend
from cli.rows import failure, put, row
from cli.run import Program
from servers.pool import on

#: Of one row each: when it was done, and when it began.
STRANGE = {"zero": ("0000-00-00 00:00:00", "0000-00-00 00:00:00"), "partly": ("2026-02-00 00:00:00", None)}


@pytest.fixture
def strange(backend: DatabaseBackend) -> DatabaseBackend:
    """A backend with such rows beside usual ones, all of one workflow."""
    known: dict[str, Any] = {"root_id": "usual", "parent_id": "usual"}
    put(backend, row("usual", root_id="usual"), failure("failed", name="mail.send", **known))
    put(backend, *(failure(name, "KeyError: 1", **known) for name in STRANGE))
    with backend.database.engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION sql_mode = ''")
        for name, (done, began) in STRANGE.items():
            times = sa.text("UPDATE celery_taskmeta SET date_done = :done, date_started = :began WHERE task_id = :id")
            connection.execute(times, {"done": done, "began": began, "id": name})
        connection.commit()
    return backend


@on("mariadb")
@pytest.mark.usefixtures("strange")
@pytest.mark.parametrize(
    "words",
    [
        *(
            "list",
            "list --json",
            "list --csv",
            "show zero",
            "show partly --json",
            "tree usual",
            "failures --since 1900-01-01",
        ),
        *(
            "tail --since 1900-01-01 --limit 2",
            "stats --by hour --since 1900-01-01",
            "workers --lost",
            "wait zero partly",
        ),
        "list --since 2026-01-31 --until 2026-02-01",
    ],
)
def test_each_command(results: Program, words: str) -> None:
    """It ends as with any row."""
    ended = results(*words.split())

    assert (ended.code in (0, 1), ended.told.count("\n") <= 1, "Error" in ended.told) == (True, True, False)


@on("mariadb")
@pytest.mark.usefixtures("strange")
def test_what_is_told(results: Program) -> None:
    """What is no time is not known; nor is how long it took."""
    found = {each["task_id"]: each for each in results.here("list", "--json").json}
    names = ("ended", "started", "waited", "runtime")

    assert [found["zero"][name] for name in names] == [None] * 4
    assert [found["partly"][name] for name in names] == [None] * 4
    assert found["usual"]["runtime"] == 1.0
