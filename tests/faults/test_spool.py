"""The database is away for longer than anybody waits: what could not be stored waits in a directory."""

from __future__ import annotations

import os
import stat
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chord, states
from celery.app.task import Context
from celery.exceptions import BackendStoreError
from celery.result import GroupResult
from sqlalchemy import event

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from chords.app import equipped
from chords.post import Post
from concurrency.nursery import Nursery, errors
from faults.conftest import Apps
from faults.keepers import app_with_spool, complaints, emptied, replay, replay_and_die, states_in, store_one, waiting
from servers import Database
from servers.pool import on
from support import request

away = on("postgresql", "mariadb")


@pytest.fixture(scope="module")
def processes() -> Iterator[Nursery]:
    """The process that others are forked from."""
    with Nursery() as nursery:
        yield nursery


# -- in and out --------------------------------------------------------------------------------------------------


@away
def test_without_a_spool_it_is_lost(database: Database, apps: Apps) -> None:
    """And the task that has stored it learns of that."""
    backend = apps(database_spool_dir=None).backend
    backend.store_result("before", 0, states.SUCCESS)
    database.server.shutdown()
    with pytest.raises(BackendStoreError):
        backend.store_result("t", 1, states.SUCCESS)

    assert backend.spooled == 0


@away
def test_kept_and_stored_by_the_process_that_kept_it(
    database: Database, backend: DatabaseBackend, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After its next write. One warning for both, which shows no content."""
    database.server.shutdown()
    backend.store_result("t", {"secret": "payload"}, states.SUCCESS, request=request())
    backend.mark_as_failure("u", ValueError("wrong"), traceback="line 1")
    kept, said = backend.spooled, complaints(caplog)
    done = utc_now()
    database.server.restart()
    backend.store_result("after", 2, states.SUCCESS)

    assert emptied(backend)
    assert (kept, len(said), waiting(folder)) == (2, 1, [])
    assert said[0].startswith("storing SUCCESS of task t failed (")
    assert f"kept in the spool {backend.spool.path}. There is no line for those that follow" in said[0]  # type: ignore[union-attr]
    assert "payload" not in caplog.text
    assert backend.get_result("t") == {"secret": "payload"}
    assert backend.app.AsyncResult("t").worker == "celery@shop-1"
    assert (repr(backend.get_result("u")), backend.get_traceback("u")) == ("ValueError('wrong')", "line 1")
    assert backend.get_task_meta("u")["date_done"] <= done


@pytest.mark.usefixtures("quiet")
@away
def test_stored_by_another_process(
    database: Database, backend: DatabaseBackend, folder: Path, processes: Nursery
) -> None:
    """As soon as it reaches the database; several at once share no work twice."""
    database.server.shutdown()
    for number in range(20):
        backend.store_result(f"t-{number}", number, states.SUCCESS)
    database.server.restart()
    outcomes = processes.at_once([(store_one, (database.url, folder, f"other-{n}")) for n in range(4)])
    processes.at_once([(replay, (database.url, folder))])  # each has a little time only

    assert errors(outcomes) == []
    assert waiting(folder) == []
    assert [backend.get_result(f"t-{number}") for number in range(20)] == list(range(20))


@on("sqlite")
def test_kept_while_another_process_empties_it(database: Database, backend: DatabaseBackend) -> None:
    """That one does not know of it: who kept it stores it, as soon as the other has done."""
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    backend.store_result("t", 1, states.SUCCESS)
    database.execute("ALTER TABLE gone RENAME TO celery_taskmeta")
    with backend.spool.alone():  # type: ignore[union-attr]
        backend.store_result("during", 1, states.SUCCESS)
        kept = (backend.spooled, backend.replay())
    backend.store_result("after", 1, states.SUCCESS)

    assert kept == (1, True)
    assert emptied(backend)


@pytest.mark.usefixtures("quiet")
@on("postgresql", "mariadb", "sqlite")
def test_killed_in_the_middle(database: Database, backend: DatabaseBackend, folder: Path, processes: Nursery) -> None:
    """What was stored but not removed is stored again, and nothing shows it."""
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    ids = ["a", "b-fatal", "c", "d-fatal", "e"]
    for task_id in ids:
        backend.store_result(task_id, task_id, states.SUCCESS)
    database.execute("ALTER TABLE gone RENAME TO celery_taskmeta")
    left = []
    for _ in range(2):
        [outcome] = processes.at_once([(replay_and_die, (database.url, folder))])
        assert "exit code -9" in outcome.error
        left.append(len(waiting(folder)))
        os.rename(waiting(folder)[0], folder / f"{len(left)}")  # else it would kill the next one as well
    for number, task_id in enumerate(("b-fatal", "d-fatal"), 1):
        assert task_id in (folder / f"{number}").read_text()
        os.rename(folder / f"{number}", backend.spool.path / f"{number:020d}-0-0.json")  # type: ignore[union-attr]
    backend.replay()

    assert left == [4, 2]
    assert states_in(database) == {**dict.fromkeys(ids, states.SUCCESS), "before": states.SUCCESS}
    assert waiting(folder) == []


@pytest.mark.usefixtures("quiet")
@away
def test_a_process_that_never_reached_the_database(database: Database, apps: Apps) -> None:
    """It does not know whether there are tables for chords."""
    database.server.shutdown()
    app = equipped(apps())
    part = {"id": "t", "group": "g", "chord": app.tasks["number"].s(), "group_index": 0}
    app.backend.mark_as_done("t", 1, request=Context(part))
    kept = app.backend.spooled
    database.server.restart()
    app.backend.replay()

    assert (kept, app.backend.spooled, app.backend.get_result("t")) == (1, 0, 1)


# -- what it holds -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
@away
def test_final_stays_final(database: Database, backend: DatabaseBackend, apps: Apps) -> None:
    """What others have stored meanwhile is not undone by what has waited."""
    database.server.shutdown()
    backend.store_result("t", ValueError("old"), states.FAILURE)
    backend.store_result("u", None, states.RETRY)
    backend.store_result("v", None, states.STARTED)
    kept = backend.spooled
    database.server.restart()
    other = apps(database_spool_dir=None).backend
    for task_id in "tu":
        other.store_result(task_id, "new", states.SUCCESS)
    backend.replay()

    assert (kept, backend.spooled) == (1, 0)
    assert states_in(database) == dict.fromkeys(["before", "t", "u"], states.SUCCESS)


@pytest.mark.usefixtures("quiet")
@away
def test_parts_of_a_chord(database: Database, apps: Apps) -> None:
    """Who stores the last of them sends the body, once, with all results in the order of the header."""
    queue = uuid.uuid4().hex
    post, another = (Post(equipped(apps(task_default_queue=queue))) for _ in range(2))
    body = chord([post.number(n) for n in range(3)])(post.number())
    first, *others = post.taken()
    post.deliver(first, 0)
    database.server.shutdown()
    for letter in others:
        post.deliver(letter, letter.args[0])
    kept = post.backend.spooled
    database.server.restart()
    another.backend.replay()
    another.backend.replay()
    [sent] = post.taken()

    assert (kept, post.backend.spooled) == (2, 0)
    assert (sent.id, sent.args[0]) == (body.id, [0, 1, 2])


@pytest.mark.usefixtures("quiet")
@away
def test_a_group(database: Database, backend: DatabaseBackend) -> None:
    """Its members are restored."""
    saved = GroupResult("g", [backend.app.AsyncResult(task_id) for task_id in "ab"], app=backend.app)
    database.server.shutdown()
    saved.save(backend)
    kept = backend.spooled
    database.server.restart()
    backend.replay()
    restored = GroupResult.restore("g", backend=backend, app=backend.app)

    assert (kept, [member.id for member in restored.results]) == (1, ["a", "b"])


@pytest.mark.usefixtures("quiet")
@on("postgresql", "mariadb", "sqlite", "portable")
def test_a_group_that_was_saved_again(database: Database, backend: DatabaseBackend) -> None:
    """What has waited is older: it replaces what is older still, and nothing else."""
    results = backend.app.AsyncResult
    older, old, new = (GroupResult("g", [results(member)], app=backend.app) for member in ("a", "b", "c"))
    found = []
    older.save(backend)
    for meanwhile in ([], [new]):
        database.execute("ALTER TABLE celery_tasksetmeta RENAME TO gone")
        old.save(backend)
        database.execute("ALTER TABLE gone RENAME TO celery_tasksetmeta")
        for saved in meanwhile:
            saved.save(backend)
        backend.replay()
        emptied(backend)  # a save that succeeds lets another thread begin as well
        found.append(GroupResult.restore("g", backend=backend, app=backend.app).results[0].id)

    assert found == ["b", "c"]


@on("sqlite")
def test_kept_while_this_process_empties_it(database: Database, backend: DatabaseBackend) -> None:
    """The list of what waits was made before: it is looked at once more."""
    kept_more = threading.Event()
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    backend.store_result("t", 1, states.SUCCESS)
    database.execute("ALTER TABLE gone RENAME TO celery_taskmeta")

    @event.listens_for(backend.database.engine, "before_cursor_execute")
    def befall(*given: Any) -> None:
        if "t" in given[3] and not kept_more.is_set():  # its parameters: it is on its way out
            kept_more.set()
            database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
            backend.store_result("u", 2, states.SUCCESS)
            database.execute("ALTER TABLE gone RENAME TO celery_taskmeta")

    assert emptied(backend)
    assert kept_more.is_set()
    assert [backend.get_result(task_id) for task_id in "tu"] == [1, 2]


@on("sqlite")
def test_nobody_else_can_read_it(database: Database, backend: DatabaseBackend, folder: Path) -> None:
    """Neither the files nor the list of them."""
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    backend.store_result("t", 1, states.SUCCESS)
    [entry] = waiting(folder)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, entry.parent, entry)]

    assert modes == [0o700, 0o700, 0o600]


@on("sqlite")
def test_tables_with_other_names_have_their_own(database: Database, backend: DatabaseBackend, apps: Apps) -> None:
    """In the same directory, without getting in each other's way."""
    other = apps(database_table_names={"task": "other"}).backend
    other.store_result("before", 0, states.SUCCESS)
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    backend.store_result("t", 1, states.SUCCESS)
    other.replay()
    kept = (backend.spooled, other.spooled)
    database.execute("ALTER TABLE gone RENAME TO celery_taskmeta")
    backend.replay()

    assert kept == (1, 0)
    assert database.execute("SELECT task_id FROM other") == [("before",)]
    assert backend.get_result("t") == 1


def test_databases_that_only_the_query_tells_apart(folder: Path) -> None:
    """They have nothing in common; a password or another order of the query makes no other database."""
    queries = [
        "",
        "host=/a",
        "host=/b",
        "host=/a&host=/b",
        "service=c",
        "service=c&host=/a",
        "options=-csearch_path%3Dd",
    ]
    same = ["host=/a&password=1", "host=/a&service=c", "host=/b&sslpassword=2"]
    places = {q: app_with_spool(f"postgresql://u@/db?{q}", folder).backend.spool.path for q in (*queries, *same)}

    assert len(set(places.values())) == len(queries)
    assert [places[query] for query in same] == [places[query] for query in ("host=/a", "service=c&host=/a", "host=/b")]
