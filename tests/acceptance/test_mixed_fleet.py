"""Two workers, one with Celery's own backend and one with ours, on one database and one queue at once."""

from __future__ import annotations

from pathlib import Path

import celery
import pytest
from celery import group

from acceptance.conftest import MakeApp
from acceptance.worker import PATIENCE, TICK, Worker, running, settings_for
from servers import Database
from servers.pool import on


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="an older Celery pickles, whatever the serializer")
@on("postgresql", "mariadb", "sqlite")
def test_a_mixed_fleet(database: Database, tmp_path: Path, make: MakeApp) -> None:
    """Celery's worker was there first; ours comes to its tables, and either caller finds what either has stored."""
    settings = {prefix: settings_for(tmp_path, f"{prefix}+{database.url}") for prefix in ("db", "sql")}
    old, new = (Worker(tmp_path, settings[prefix], "--concurrency=2", name=prefix) for prefix in settings)
    with running(old), running(new):
        theirs, ours = make(settings["db"]), make(settings["sql"])
        result = group(ours.tasks["add"].s(n, n) for n in range(100)).apply_async()
        assert result.get(timeout=PATIENCE, interval=TICK) == [2 * n for n in range(100)]
        old.ask_to_stop()
    assert [theirs.AsyncResult(member.id).get(timeout=PATIENCE) for member in result] == [2 * n for n in range(100)]
    assert all("succeeded" in worker.log for worker in (old, new))
    assert new.complaints == []
    assert database.errors() == []
