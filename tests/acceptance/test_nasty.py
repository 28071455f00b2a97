"""Real workers: whatever a task returns or raises, an outcome is stored, and whoever waits for it learns of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import states
from celery.exceptions import NotRegistered

from acceptance.conftest import MakeApp
from acceptance.nasty import everything
from acceptance.worker import PATIENCE, Worker, running, settings_for
from servers import Database

CASES = [("postgresql", "json"), ("mariadb", "pickle"), ("sqlite", "yaml")]


@pytest.mark.parametrize(("database", "serializer"), CASES, indirect=["database"])
def test_every_outcome_is_stored(tmp_path: Path, make: MakeApp, database: Database, serializer: str) -> None:
    """As a failure that says what it was, under whatever serializer, and without trouble in the worker's log."""
    settings = settings_for(
        tmp_path,
        f"sql+{database.url}",
        result_serializer=serializer,
        result_accept_content=[serializer],
        result_extended=True,
        database_redact=["what"],
    )
    worker = Worker(tmp_path, settings, "--pool=prefork", "--concurrency=1")
    with running(worker):
        app = make(settings)
        results = {each: app.tasks["misbehave"].delay(*each) for each in everything()}
        found = {each: result.get(timeout=PATIENCE, propagate=False) for each, result in results.items()}
        stored = {each: result.state for each, result in results.items()}
        arguments = [result.args for result in results.values()]

    assert stored == dict.fromkeys(results, states.FAILURE)
    assert [each for each, error in found.items() if not isinstance(error, Exception)] == []
    assert arguments == [[how, "[redacted]"] for how, _ in results]
    assert worker.complaints == []


def test_an_unknown_task_is_stored_too(tmp_path: Path, make: MakeApp, sqlite: Database) -> None:
    """As a failure, also where its arguments must not be stored; the worker goes on."""
    settings = settings_for(tmp_path, f"sql+{sqlite.url}", result_extended=True, database_redact=["what"])
    worker = Worker(tmp_path, settings, "--pool=solo")
    with running(worker):
        app = make(settings)
        unknown = app.send_task("unknown", ["a secret"])
        error = unknown.get(timeout=PATIENCE, propagate=False)
        found = app.tasks["add"].delay(1, 2).get(timeout=PATIENCE)

    assert (unknown.state, type(error), unknown.args) == (states.FAILURE, NotRegistered, None)
    assert (found, worker.complaints) == (3, [])
