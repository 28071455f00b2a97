"""The spool when something else goes wrong as well: what is not the fault of a result does it no harm."""

from __future__ import annotations

import json
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import states
from celery.exceptions import BackendStoreError, SoftTimeLimitExceeded
from celery.result import GroupResult
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from celery_sql_results import DatabaseBackend, SettingError
from faults.conftest import Apps
from faults.keepers import complaints, states_in, waiting
from servers import Database
from servers.pool import on


def strikes(engine: Engine) -> None:
    """Raise what a soft time limit does, on each connection."""

    def strike(*_: object) -> None:
        raise SoftTimeLimitExceeded

    event.listen(engine, "do_connect", strike)


@pytest.mark.usefixtures("quiet")
@on("postgresql", "mariadb", "sqlite", "portable")
def test_tables_that_are_gone(database: Database, backend: DatabaseBackend) -> None:
    """That does not pass by itself, so nobody waits; and it is no fault of the result."""
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    backend.store_result("t", 1, states.SUCCESS)
    kept = backend.spooled
    with pytest.raises(DBAPIError, match=r"celery_taskmeta"):
        backend.replay()
    database.execute("ALTER TABLE gone RENAME TO celery_taskmeta")
    backend.replay()

    assert (kept, backend.spooled, backend.get_result("t")) == (1, 0, 1)


@pytest.mark.usefixtures("quiet")
@on("postgresql", "sqlite")
def test_a_password_that_cannot_be_fetched(database: Database, apps: Apps, folder: Path, tmp_path: Path) -> None:
    """Whatever the errors of those who fetch it look like, they are no fault of the results."""
    secret = tmp_path / "secret.json"
    secret.write_text("null")
    fetch = partial(event.listen, identifier="do_connect", fn=lambda *_: json.loads(secret.read_text()))
    backend = apps(database_engine_callback=fetch, database_short_lived_sessions=True).backend
    backend.store_result("before", 0, states.SUCCESS)
    secret.write_text("<html>")
    for task_id in "tu":
        backend.store_result(task_id, task_id, states.SUCCESS)
    with pytest.raises(json.JSONDecodeError):
        backend.replay()
    kept, rejected = backend.spooled, list(folder.glob("*/*.rejected"))
    secret.write_text("null")
    backend.replay()

    assert (kept, rejected, backend.spooled) == (2, [], 0)
    assert [backend.get_result(task_id) for task_id in "tu"] == ["t", "u"]


@on("sqlite")
def test_a_soft_time_limit(database: Database, apps: Apps, folder: Path) -> None:
    """A task that runs is told of it; when it has ended, its outcome is worth more."""
    backend = apps(database_engine_callback=strikes, database_short_lived_sessions=True).backend
    for state in (states.STARTED, "PROGRESS"):
        with pytest.raises(SoftTimeLimitExceeded):
            backend.store_result("t", None, state)
    with pytest.raises(SoftTimeLimitExceeded):
        GroupResult("g", [], app=backend.app).save(backend)
    backend.store_result("t", 1, states.SUCCESS)
    [kept] = waiting(folder)

    assert json.loads(kept.read_text())["row"]["status"] == states.SUCCESS


@on("postgresql", "mariadb")
def test_full(database: Database, apps: Apps, caplog: pytest.LogCaptureFixture) -> None:
    """Then it is as without one, and the log says what to do."""
    backend = apps(database_spool_max_bytes=1000).backend
    backend.store_result("before", 0, states.SUCCESS)
    database.server.shutdown()
    backend.store_result("t", 1, states.SUCCESS)
    with pytest.raises(BackendStoreError):
        backend.store_result("u", "x" * 1000, states.SUCCESS)

    assert backend.spooled == 1
    told = [line for line in complaints(caplog) if "trouble with" not in line]  # which is told after a second
    assert ["is full" in line for line in told] == [False, True]
    assert complaints(caplog)[-1].endswith("raise database_spool_max_bytes")


def hostile(path: Path, canary: Path) -> dict[str, bytes]:
    """Files that are no entries, by name; each would come first."""
    row = {"task_id": "t", "status": "SUCCESS"}

    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(canary),)

    (path / "0-link.json").symlink_to("/etc/passwd")
    (path / "0-folder.json").mkdir()
    return {
        "0-empty.json": b"",
        "0-pickle.json": pickle.dumps(Payload()),
        "0-version.json": json.dumps({"version": 7, "kind": "task", "row": row}).encode(),
        "0-column.json": json.dumps({"version": 1, "kind": "task", "row": {**row, "id) --": "x"}}).encode(),
        "0-surrogate.json": json.dumps({"version": 1, "kind": "task", "row": {**row, "task_id": "\ud800"}}).encode(),
    }


@pytest.mark.usefixtures("quiet")
@on("postgresql", "mariadb", "sqlite", "portable")
def test_what_is_no_entry_is_put_aside(
    database: Database, backend: DatabaseBackend, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps no other from being stored, and nothing of it is run."""
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    backend.store_result("good", 1, states.SUCCESS)
    database.execute("ALTER TABLE gone RENAME TO celery_taskmeta")
    caplog.clear()
    [entry] = waiting(folder)
    files = hostile(entry.parent, tmp_path / "canary")
    for name, content in files.items():
        (entry.parent / name).write_bytes(content)
    backend.replay()
    rejected = {path.name for path in folder.glob("*/*.rejected")}

    assert rejected == {f"{name}.rejected" for name in (*files, "0-link.json", "0-folder.json")}
    assert (waiting(folder), len(complaints(caplog))) == ([], len(rejected))
    assert not (tmp_path / "canary").exists()
    assert states_in(database) == {"before": states.SUCCESS, "good": states.SUCCESS}


@pytest.mark.usefixtures("quiet")
@on("postgresql", "mariadb", "sqlite", "portable")
def test_what_cannot_be_stored_for_now_is_left(database: Database, backend: DatabaseBackend, folder: Path) -> None:
    """The others are stored; then the reason is raised, in the log of an upkeep for one."""
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    database.execute("ALTER TABLE celery_tasksetmeta RENAME TO groups_gone")
    GroupResult("g", [], app=backend.app).save(backend)
    backend.store_result("t", 1, states.SUCCESS)
    database.execute("ALTER TABLE gone RENAME TO celery_taskmeta")
    with pytest.raises(DBAPIError, match=r"celery_tasksetmeta"):
        backend.replay()
    left = [json.loads(path.read_text())["kind"] for path in waiting(folder)]
    database.execute("ALTER TABLE groups_gone RENAME TO celery_tasksetmeta")
    backend.replay()

    assert (left, backend.spooled, backend.get_result("t")) == (["group"], 0, 1)
    assert GroupResult.restore("g", backend=backend, app=backend.app) is not None


@on("sqlite")
def test_a_directory_that_cannot_be_used(apps: Apps, tmp_path: Path) -> None:
    """That is one error, when the backend is made."""
    (tmp_path / "file").touch()

    with pytest.raises(SettingError, match=r"^database_spool_dir is "):
        apps(database_spool_dir=str(tmp_path / "file"))


@on("postgresql", "sqlite")
def test_a_spool_that_was_swapped_holds_no_result_up(
    database: Database, apps: Apps, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is taken from it nor put into it; with the database away, a result is an error as without a spool."""
    backend = apps().backend
    [place] = folder.iterdir()
    place.rename(folder / "away")
    place.mkdir()
    place.chmod(0o777)
    backend.store_result("t", 1, states.SUCCESS)
    assert backend.get_result("t") == 1
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    with pytest.raises(DBAPIError):
        backend.store_result("u", 2, states.SUCCESS)

    assert [
        line for line in caplog.messages if "cannot be written to: " in line and "nobody but its owner" in line
    ] != []
