"""What a user does with results, in steps that leave each other's ids alone; then SQL tells what is there."""

from __future__ import annotations

import json
import pickle
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import msgpack
import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError, TimeoutError
from celery.result import GroupResult

from crossings.stage import PATIENCE, Stage, eventually, meanwhile
from legacy import expected
from support import request

#: Every serializer takes it, and no table needs more than Latin 1 for it once it is written.
VALUE = {"sum": 2.5, "text": "naïve 東京 🎉", "list": [1, None, True]}
CYRILLIC = "деление на ноль"
TRACEBACK = f"Traceback (most recent call last):\n  {CYRILLIC}\x00\n"
LOADS: dict[str, Callable[[bytes], Any]] = {"json": json.loads, "pickle": pickle.loads, "msgpack": msgpack.unpackb}
#: Much more than what is left of as many equal letters in any compression.
LARGE, SMALL = 20_000, 2_000


def every_state(stage: Stage) -> None:
    """One after the other, as a task reports them."""
    backend, result = stage.app.backend, stage.result("states")
    found = [(result.state, result.result)]
    for state, value in [
        ("RECEIVED", None),
        ("STARTED", {"pid": 7}),
        ("PROGRESS", VALUE),
        ("RETRY", KeyError("not yet")),
        ("SUCCESS", VALUE),
    ]:
        backend.store_result("states", value, state, request=request("states"))
        found.append((result.state, str(result.result) if state == "RETRY" else result.result))

    assert found == [
        ("PENDING", None),
        ("RECEIVED", None),
        ("STARTED", {"pid": 7}),
        ("PROGRESS", VALUE),
        ("RETRY", "'not yet'"),
        ("SUCCESS", VALUE),
    ]


def failures(stage: Stage) -> None:
    """What was raised, with a traceback in a script that not every table can hold."""
    backend = stage.app.backend
    backend.store_result("failed", ValueError("zu wenig", 7), "FAILURE", traceback=TRACEBACK, request=request("failed"))
    backend.mark_as_revoked("revoked", "by hand", request=request("revoked"))
    failed, revoked = stage.result("failed"), stage.result("revoked")

    assert (failed.state, revoked.state) == ("FAILURE", "REVOKED")
    assert (type(revoked.result), str(revoked.result)) == (TaskRevokedError, "by hand")
    if not (stage.is_("database", "mariadb") and stage.place.release):  # old tables there hold Latin 1
        assert repr(failed.result) == "ValueError('zu wenig', 7)"
        assert CYRILLIC in failed.traceback


def final_stays_final(stage: Stage) -> None:
    """Whatever comes late."""
    backend = stage.app.backend
    for task_id, value, final in [("done", VALUE, "SUCCESS"), ("broken", KeyError("no"), "FAILURE")]:
        backend.store_result(task_id, value, final, request=request(task_id))
        for late, state in [("late", "STARTED"), ("late", "PROGRESS"), (KeyError("late"), "RETRY")]:
            backend.store_result(task_id, late, state, request=request(task_id))
    backend.store_result("done", KeyError("late"), "FAILURE", request=request("done"))

    assert [stage.result(task_id).state for task_id in ("done", "broken")] == ["SUCCESS", "FAILURE"]
    assert stage.result("done").result == VALUE


def awaited_of_a_worker(stage: Stage) -> None:
    """A task is waited for that runs meanwhile; one sees its own state."""
    tracked = stage.is_("started", "track-started")
    result = stage.app.tasks["crossings.late"].delay(VALUE)

    assert stage.found(result) == VALUE
    assert result.state == "SUCCESS"
    assert stage.found(stage.app.tasks["crossings.own_state"].delay()) == ("STARTED" if tracked else "PENDING")


def awaited_of_a_thread(stage: Stage) -> None:
    """Somebody here stores it while somebody here waits."""
    with meanwhile(lambda: stage.found(stage.result("awaited"))) as found:
        time.sleep(0.1)
        stage.app.backend.store_result("awaited", VALUE, "SUCCESS", request=request("awaited"))

    assert found == [VALUE]


def many(stage: Stage) -> None:
    """Two that are there and one that comes."""
    backend = stage.app.backend
    ids = ["many-0", "many-1", "many-2"]
    for number in (0, 1):
        backend.store_result(ids[number], number, "SUCCESS")
    with meanwhile(lambda: sorted((id_, meta["result"]) for id_, meta in backend.get_many(ids, timeout=PATIENCE))) as f:
        time.sleep(0.1)
        backend.store_result(ids[2], 2, "SUCCESS")

    assert f == [[(id_, number) for number, id_ in enumerate(ids)]]


def one_twice(stage: Stage) -> None:
    """In a set, one of them awaited."""
    ids, backend = ["twice-0", "twice-1"], stage.app.backend
    backend.store_result(ids[0], 0, "SUCCESS")
    with meanwhile(lambda: stage.set_of(ids[0], ids[1], ids[0]).get(timeout=PATIENCE)) as found:
        time.sleep(0.1)
        backend.store_result(ids[1], 1, "SUCCESS")

    assert found == [[0, 1, 0]]


def timed_out(stage: Stage) -> None:
    """A wait that is over leaves nothing behind that disturbs the next."""
    with pytest.raises(TimeoutError):
        stage.result("too late").get(timeout=0.05)
    with pytest.raises(TimeoutError):
        stage.set_of("too late", "twice-0").get(timeout=0)
    stage.app.backend.store_result("too late", VALUE, "SUCCESS")

    assert stage.found(stage.result("too late")) == VALUE


def called_back(stage: Stage) -> None:
    """By a result and by a set, as soon as they are there."""
    called: list[object] = []
    result, both = stage.app.AsyncResult("then-0"), stage.app.ResultSet([stage.app.AsyncResult("then-1")])
    result.then(lambda done: called.append(done.result))
    both.then(lambda done: called.append([one.result for one in done.results]))
    for number in (0, 1):
        stage.app.backend.store_result(f"then-{number}", number, "SUCCESS")

    assert eventually(lambda: sorted(map(str, called)), ["0", "[1]"]) == ["0", "[1]"]


def groups(stage: Stage) -> None:
    """One of a worker: joined, saved, restored, deleted."""
    sent = group(stage.app.tasks["crossings.number"].s(value) for value in range(3)).apply_async()
    sent.save()
    restored = GroupResult.restore(sent.id, app=stage.app)
    members = [member.id for member in restored.results]
    values = restored.get(timeout=PATIENCE)
    restored.delete()

    assert members == [member.id for member in sent.results]
    assert (values, sent.get(timeout=PATIENCE)) == ([0, 1, 2], [0, 1, 2])
    assert GroupResult.restore(sent.id, app=stage.app) is None


def chords(stage: Stage) -> None:
    """The body gets all that the header returned."""
    number, in_order = stage.app.tasks["crossings.number"], stage.app.tasks["crossings.in_order"]
    body = chord([number.s(value) for value in (3, 1, 2)])(in_order.s())

    assert stage.found(body) == [1, 2, 3]
    assert body.parent.get(timeout=PATIENCE) == [3, 1, 2]


def chords_that_fail(stage: Stage) -> None:
    """Of one part: the body never runs, and what the part has raised is raised, whenever one asks."""
    number, burst = stage.app.tasks["crossings.number"], stage.app.tasks["crossings.burst"]
    body = chord([number.s(1), burst.s("zu wenig"), number.s(2)])(stage.app.tasks["crossings.in_order"].s())
    with pytest.raises(ValueError, match="zu wenig"):
        stage.found(body)

    assert eventually(lambda: body.state, "FAILURE") == "FAILURE"
    with pytest.raises(ValueError, match="zu wenig"):
        stage.found(body)


def chords_whose_parts_others_store(stage: Stage) -> None:
    """A part ends without an outcome, which another process stores later."""
    tasks = stage.app.tasks
    parts = [tasks["crossings.number"].s(1), tasks["crossings.left_to_others"].s(2)]
    body = chord(parts)(tasks["crossings.in_order"].s())
    stage.found(body.parent.results[0])
    stage.app.backend.mark_as_done(body.parent.results[1].id, 2)
    if stage.is_("worker", "threads-here", "solo-here"):  # Celery's worker for tests has no upkeep
        stage.app.backend.sweep_chords()

    assert stage.found(body) == [1, 2]


def chains(stage: Stage) -> None:
    """Parents and children."""
    number, plus, beget = (stage.app.tasks[f"crossings.{task}"] for task in ("number", "plus", "beget"))
    last = chain(number.s(1), plus.s(2), plus.s(3)).apply_async()
    parent = beget.delay()
    stage.found(parent)

    assert (stage.found(last), stage.found(last.parent), stage.found(last.parent.parent)) == (6, 3, 1)
    assert stage.result(last.parent.id).children == [stage.result(last.id)]
    assert sorted(stage.found(child) for child in stage.result(parent.id).children) == [0, 1]


def what_is_known(stage: Stage) -> None:
    """Of a task that a worker ran, beside its result."""
    result = stage.app.tasks["crossings.number"].apply_async(([1],), {"token": "hush-hush"})
    stage.found(result)
    token = "[redacted]" if stage.is_("kept", "redacted") else "hush-hush"
    found = (result.name, result.args and list(result.args), result.kwargs, result.retries)
    arguments = (None, None) if stage.is_("kept", "plain") else ([[1]], {"token": token})

    assert found == ((None,) * 4 if stage.is_("kept", "outcome-only") else ("crossings.number", *arguments, 0))


def forgotten(stage: Stage) -> None:
    """Gone for everybody."""
    stage.app.backend.store_result("forgotten", VALUE, "SUCCESS")
    before = stage.look("SELECT count(*) FROM {tasks} WHERE task_id = 'forgotten'")
    stage.result("forgotten").forget()

    assert (before, stage.look("SELECT count(*) FROM {tasks} WHERE task_id = 'forgotten'")) == ([(1,)], [(0,)])
    assert stage.result("forgotten").state == "PENDING"


def one_statement(stage: Stage) -> None:
    """Is what a write takes, where the database is known and tells."""
    if stage.place.database is None or stage.is_("database", "sqlite", "portable"):
        return
    stage.app.backend.store_result("warm", 1, "SUCCESS")
    with stage.place.database.statements() as seen:
        stage.app.backend.store_result("counted", None, "STARTED")
        stage.app.backend.store_result("counted", 1, "SUCCESS")
    table = re.compile(rf"\b{stage.place.tasks.rpartition('.')[2]}\b")
    about = [statement for statement in seen if table.search(statement)]

    assert [re.findall(r"INSERT|UPDATE|SELECT", statement)[0] for statement in about] == ["INSERT", "INSERT"]


def an_outage(stage: Stage) -> None:
    """Of a second: what is stored here and by the worker meanwhile is there afterwards, and so is who waits for it."""
    backend, number = stage.app.backend, stage.app.tasks["crossings.number"]
    with meanwhile(lambda: stage.found(stage.result("outlasting"))) as waited:
        with stage.place.outage():
            sent = number.delay(VALUE)
            backend.store_result("outlasting", VALUE, "SUCCESS", request=request("outlasting"))
            backend.store_result("failing", KeyError("no"), "FAILURE", request=request("failing"))
        backend.store_result("after", VALUE, "SUCCESS", request=request("after"))  # which empties a spool

    assert waited == [VALUE]
    assert stage.found(sent) == VALUE
    ids = ("outlasting", "failing", "after")
    assert eventually(lambda: [stage.result(id_).state for id_ in ids], ["SUCCESS", "FAILURE", "SUCCESS"]) == [
        "SUCCESS",
        "FAILURE",
        "SUCCESS",
    ]


def what_sql_finds(stage: Stage) -> None:
    """One row for each task, in the right table, with its time in UTC."""
    stage.app.backend.store_result("unfinished", VALUE, "PROGRESS", request=request("unfinished"))
    ids = {
        "states": "SUCCESS",
        "failed": "FAILURE",
        "revoked": "REVOKED",
        "done": "SUCCESS",
        "failing": "FAILURE",
        "unfinished": "PROGRESS",
    }
    listed = ", ".join(f"'{id_}'" for id_ in ids)
    rows = stage.look(f"SELECT task_id, status, date_done FROM {{tasks}} WHERE task_id IN ({listed})")
    times = {task_id: in_utc(date) for task_id, _, date in rows if date is not None}
    now = datetime.now(timezone.utc) + timedelta(seconds=1)  # Celery's columns on MariaDB round to seconds

    assert sorted((task_id, status) for task_id, status, _ in rows) == sorted(ids.items())
    assert set(ids) - set(times) == {"unfinished"}
    assert {id_: time for id_, time in times.items() if not stage.began - timedelta(seconds=1) < time < now} == {}


def in_utc(stored: Any) -> datetime:
    """The time that a column holds: without a zone it is UTC."""
    time = datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    return time.astimezone(timezone.utc) if time.tzinfo else time.replace(tzinfo=timezone.utc)


def when_it_was_done(stage: Stage) -> None:
    """Is told by the result as Celery tells it: naive UTC."""
    done = stage.result("done").date_done

    assert stage.began - timedelta(seconds=1) < in_utc(done) < datetime.now(timezone.utc) + timedelta(seconds=1)


def how_it_is_written(stage: Stage) -> None:
    """In the serializer that was chosen, compressed if that was chosen, and without what must not be stored."""
    stage.app.backend.store_result("large", "x" * LARGE, "SUCCESS")
    [(large,)] = stage.look("SELECT result FROM {tasks} WHERE task_id = 'large'")
    compressed = not stage.is_("compression", "uncompressed")

    assert (len(large) < SMALL) == compressed
    assert stage.result("large").result == "x" * LARGE
    if not compressed:
        assert LOADS[stage.place.crossing["serializer"]](bytes(large)) == "x" * LARGE
    if not stage.is_("kept", "extended"):
        assert [row for row in stage.look("SELECT * FROM {tasks}") if b"hush-hush" in repr(row).encode()] == []


def rows_of_old(stage: Stage) -> None:
    """Are read as they were."""
    if stage.place.release is None:
        return
    said = expected(stage.place.release)["tasks"]
    ids = [id_ for id_, about in said.items() if id_.startswith("json-") and about["plain"] and "value" in about]

    assert len(ids) > 5
    assert {id_: stage.result(id_).result for id_ in ids} == {id_: said[id_]["value"] for id_ in ids}


def cleanup(stage: Stage) -> None:
    """Deletes what was done more than an hour ago, and nothing else."""
    backend = stage.app.backend
    for age, id_ in ((2.0, "old"), (0.5, "young")):
        backend.store_result(id_, VALUE, "SUCCESS")
        GroupResult(id_, [stage.result(id_)], app=stage.app).save(backend=backend)
        at = written(stage, datetime.now(timezone.utc) - timedelta(hours=age))
        stage.look(f"UPDATE {{tasks}} SET date_done = '{at}' WHERE task_id = '{id_}'")
        stage.look(f"UPDATE {{groups}} SET date_done = '{at}' WHERE taskset_id = '{id_}'")
    backend.cleanup()

    left = "SELECT {} FROM {{{}}} WHERE {} IN ('old', 'young', 'done', 'unfinished', 'json-int') ORDER BY 1"
    assert stage.look(left.format("task_id", "tasks", "task_id")) == [("done",), ("unfinished",), ("young",)]
    assert stage.look(left.format("taskset_id", "groups", "taskset_id")) == [("young",)]


def written(stage: Stage, time: datetime) -> str:
    """A time as a literal; PostgreSQL takes it for UTC, whatever the zone of the session or the type of the column."""
    plain = time.strftime("%Y-%m-%d %H:%M:%S.%f")
    return f"{plain}+00" if stage.is_("tables", "timestamptz") else plain


#: In this order: SQL looks at what the steps before have stored, and cleanup ends the old rows.
STEPS: tuple[Callable[[Stage], None], ...] = (
    every_state,
    failures,
    final_stays_final,
    awaited_of_a_worker,
    awaited_of_a_thread,
    many,
    one_twice,
    timed_out,
    called_back,
    groups,
    chords,
    chords_that_fail,
    chords_whose_parts_others_store,
    chains,
    what_is_known,
    forgotten,
    one_statement,
    an_outage,
    what_sql_finds,
    when_it_was_done,
    how_it_is_written,
    rows_of_old,
    cleanup,
)
