"""Times: shown in the zone of this machine or in UTC, and understood as people write them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from celery_sql_results import DatabaseBackend
from cli.rows import put, row
from cli.run import Program
from servers import Database
from servers.pool import on

pytestmark = on("sqlite", "postgresql")


def shown(program: Program, *options: str) -> list[str]:
    """The first line of a list, as its columns."""
    return program("list", "--limit", "1", *options).lines[1].split("  ")


@pytest.mark.usefixtures("stored")
def test_zones(results: Program) -> None:
    """Noon in UTC is another hour elsewhere; programs get UTC in any zone."""
    tokyo, state = results.but(TZ="Asia/Tokyo"), ("--state", "SUCCESS")

    assert shown(results, *state)[0] == "2026-03-01 11:59:00"
    assert shown(tokyo, *state)[0] == "2026-03-01 20:59:00"
    assert shown(tokyo, *state, "--utc")[0] == "2026-03-01 11:59:00Z"
    assert tokyo("list", *state, "--json").json[0]["when"] == "2026-03-01T11:59:00.000000Z"


@pytest.mark.usefixtures("stored")
def test_times_that_people_write(results: Program) -> None:
    """Without an offset they are local."""
    tokyo = results.but(TZ="Asia/Tokyo")
    since = ("2026-03-01 20:58", "2026-03-01T11:58Z", "2026-03-01T12:58+01:00")

    found = [len(tokyo("list", "--state", "SUCCESS", "--since", each, "--json").json) for each in since]

    assert found == [2, 2, 2]


def test_how_long_ago(results: Program, backend: DatabaseBackend, database: Database) -> None:
    """`2h` is two hours before now, whatever the zones of this machine and of the server are."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    put(backend, *(row(f"{ago}", date_done=now - timedelta(minutes=ago)) for ago in (1, 90, 150, 60 * 24 * 8)))
    tokyo = results.but(TZ="Asia/Tokyo")

    def ids(*options: str) -> list[str]:
        return [each["task_id"] for each in tokyo("list", *options, "--json").json]

    assert ids("--since", "2h") == ["1", "90"]
    assert ids("--until", "2h", "--since", "1w") == ["150"]
    assert ids("--until", "7d") == ["11520"]
