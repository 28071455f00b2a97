"""Two workers, a fresh database, and the first thing ever sent is a group of 100."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import group

from acceptance.conftest import MakeApp
from acceptance.worker import PATIENCE, TICK, Worker, running, settings_for
from servers import Database
from servers.pool import on


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize("at_setup", [False, True], ids=["by the children", "by the workers"])
def test_a_group_is_the_first_thing_ever_sent(
    database: Database, tmp_path: Path, make: MakeApp, at_setup: bool
) -> None:
    """The tables are created by 16 children that meet, or by 2 workers that meet."""
    settings = settings_for(tmp_path, f"sql+{database.url}", database_create_tables_at_setup=at_setup)
    app = make(settings)
    workers = [Worker(tmp_path, settings, "--concurrency=8", name=name) for name in ("one", "two")]
    with running(*workers):
        result = group(app.tasks["add"].s(n, n) for n in range(100)).apply_async()
        assert result.get(timeout=PATIENCE, interval=TICK) == [2 * n for n in range(100)]
    assert [line for worker in workers for line in worker.complaints] == []
    assert database.errors() == []
