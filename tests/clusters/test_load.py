"""The load on clusters, on a single server: all that is called and stored is there, and what is missing is seen."""

from __future__ import annotations

from pathlib import Path

from clusters.load import load_on, workers_on
from clusters.tasks import BODIES
from concurrency.nursery import Nursery
from faults.actors import RAN, RETURNED
from faults.load import Verdict, until
from servers import Database, Redis


def test_verdict(postgresql: Database, redis: Redis, nursery: Nursery, tmp_path: Path) -> None:
    folder = tmp_path / "load"
    folder.mkdir()
    with workers_on(postgresql.url, redis.url(), tmp_path), load_on(nursery, postgresql.url, redis.url(), folder) as on:
        until(lambda: len(on.noted(RAN)) > 4, "bodies run")
    assert on.verdict() == Verdict()
    assert 0 < on.longest() < 60

    postgresql.execute("DELETE FROM celery_taskmeta WHERE task_id IN ('load-caller0-0-body', 'load-caller1-0-part2')")
    with (folder / BODIES).open("a") as file:
        file.write(f"{RAN}load-caller1-0-body\n")
    assert on.verdict() == Verdict(
        lost=("load-caller0-0-body",), missing=("load-caller1-0-part2",), repeated=("load-caller1-0-body",)
    )
    assert "load-caller1-0-body" in on.noted(RETURNED, "caller")
