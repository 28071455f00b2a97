"""Rows that somebody else has put there: a clear error from a small set, and nothing of them is ever run."""

from __future__ import annotations

import json
import os
import pickle
import random
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from celery.exceptions import SecurityError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, GroupResult
from kombu.compression import compress
from kombu.exceptions import ContentDisallowed, DecodeError

from celery_sql_results import DatabaseBackend, PayloadTooLarge
from celery_sql_results.payload.encoding import COMPRESSED
from servers import Database
from support import app_on, close

#: What a reader may meet in a row that he cannot trust.
ALLOWED = (ContentDisallowed, DecodeError, SecurityError, CeleryTimeoutError)
PAYLOADS = ("result", "children", "args", "kwargs", "stamps")
TEXTS = ("status", "traceback", "name", "worker", "queue", "content_type", "parent_id", "root_id", "group_id")
JSON, PICKLE = "application/json", "application/x-python-serialize"


@pytest.fixture
def backend(database: Database) -> Iterator[DatabaseBackend]:
    """A backend that reads every column, on tables that are there."""
    backend = app_on(database.url, result_extended=True, database_max_decompressed_bytes=1_000_000).backend
    backend.store_result("model", {"a": [1, "b"]}, states.SUCCESS)
    yield backend
    close(backend)


def put(backend: DatabaseBackend, task_id: str, **columns: Any) -> None:
    """Write a row past the backend, as a stranger does; on SQLite also what is not of the column's type."""
    row = {"id": 10**6 + len(task_id), "task_id": task_id, "status": states.SUCCESS, "result": b'"fine"'}
    row |= {"content_type": JSON, **columns}
    names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    with backend.database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM celery_taskmeta WHERE task_id = :id"), {"id": task_id})
        connection.execute(sa.text(f"INSERT INTO celery_taskmeta ({names}) VALUES ({places})"), row)


def outcome(backend: DatabaseBackend, task_id: str) -> list[object]:
    """What three ways of reading a row come to: the classes of their errors, or what was found."""
    ways = (
        lambda: backend.get_task_meta(task_id)["status"],
        lambda: AsyncResult(task_id, app=backend.app).get(timeout=0),
        lambda: [found["status"] for _, found in backend.get_many([task_id], timeout=0)],
    )
    found: list[object] = []
    for way in ways:
        try:
            found.append(way())
        except Exception as error:  # noqa: BLE001 - which one is the question
            found.append(error)
    return found


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def failure(**exception: Any) -> dict[str, Any]:
    """The columns of a task that has failed."""
    return {"status": states.FAILURE, "result": json.dumps(exception).encode()}


def packed(data: bytes, method: str = "application/x-gzip") -> bytes:
    """A payload as it is stored compressed."""
    return COMPRESSED + method.encode() + b"\x00" + compress(data, method)[0]


HOSTILE: list[tuple[str, dict[str, Any], type[Exception]]] = [
    ("no exception", failure(exc_module="os", exc_type="system", exc_message=["mkdir made"]), SecurityError),
    ("a function of builtins", failure(exc_module="builtins", exc_type="eval", exc_message=["1"]), SecurityError),
    ("a class, but of no exception", failure(exc_module="pathlib", exc_type="Path", exc_message=["."]), SecurityError),
    ("a method", failure(exc_module="os", exc_type="environ.clear", exc_message=[]), Exception),
    ("a module that is not loaded", failure(exc_module="antigravity", exc_type="E", exc_message=["x"]), Exception),
    ("an end of the process", failure(exc_module="builtins", exc_type="SystemExit", exc_message=[3]), Exception),
    ("no name", failure(exc_module="builtins"), DecodeError),
    ("a name of another type", failure(exc_module="builtins", exc_type=7), DecodeError),
    ("a module of another type", failure(exc_module=["os"], exc_type="error"), DecodeError),
    ("a name with NUL", failure(exc_type="a\x00\ud800"), Exception),
    ("a list", {"status": states.FAILURE, "result": b"[1, 2]"}, DecodeError),
    ("a text", {"status": states.FAILURE, "result": b'"text"'}, DecodeError),
    ("nothing", {"status": states.FAILURE, "result": None}, DecodeError),
    ("a pickle", {"result": pickle.dumps(Evil(Path("made")))}, ContentDisallowed),
    ("a compressed pickle", {"result": packed(pickle.dumps(Evil(Path("made"))))}, ContentDisallowed),
    ("a pickle with a huge memo", {"result": b"\x80\x02Nr\xff\xff\xff\x7f"}, DecodeError),
    ("a pickle that says so", {"result": b"cos\nsystem\n.", "content_type": PICKLE}, ContentDisallowed),
    ("a bomb", {"result": packed(bytes(100_000_000))}, PayloadTooLarge),
    ("a truncated payload", {"result": packed(b'"text"')[:-6]}, DecodeError),
    ("an unknown compression", {"result": COMPRESSED + b"application/x-no\x00abc"}, DecodeError),
    ("a compression without a name", {"result": COMPRESSED + b"\xff"}, DecodeError),
    ("truncated JSON", {"result": b'{"a": '}, DecodeError),
    ("very deep JSON", {"result": b"[" * 200_000}, DecodeError),
    ("an unknown type in JSON", {"result": b'{"__type__": "os", "__value__": 1}'}, DecodeError),
    ("an unknown content type", {"content_type": "text/x-unknown", "result": b"\xff"}, ContentDisallowed),
]


@pytest.mark.parametrize(("columns", "expected"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile(
    sqlite: Database,
    columns: dict[str, Any],
    expected: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The state, one clear error at `get()`, and no folder was made. How a row is read depends on no database."""
    monkeypatch.chdir(tmp_path)
    backend = app_on(sqlite.url, result_extended=True, database_max_decompressed_bytes=1_000_000).backend
    before = {*sys.modules}
    put(backend, "t", **columns)
    state, got, _ = outcome(backend, "t")
    told = backend.get_result("t")
    close(backend)

    assert (state, repr(got)) == (columns.get("status", states.SUCCESS), repr(told))
    assert isinstance(got, expected)
    assert isinstance(got, ALLOWED) or columns["status"] == states.FAILURE
    assert [*tmp_path.iterdir()] == []
    assert "antigravity" not in {*sys.modules} - before


INFORMING: list[tuple[str, dict[str, Any]]] = [
    ("a pickle of children", {"children": pickle.dumps(Evil(Path("made")))}),
    ("a pickle of arguments", {"args": pickle.dumps(Evil(Path("made")))}),
    ("children that are no list", {"children": b"7"}),
    ("children that are no results", {"children": b'[{"a": 1}]'}),
    ("children without an id", {"children": b"[[[null, null], null]]"}),
    ("children that are results, half", {"children": b'[[["a", [["b", null], 7]], null]]'}),
    ("stamps that are no dict", {"stamps": b"[1]"}),
    ("stamps without values", {"stamps": b'{"stamped_headers": ["a"]}'}),
    ("values of stamps that are no dict", {"stamps": b'{"stamped_headers": ["a"], "stamps": 7}'}),
    ("a value of children that is compressed, but not", {"children": COMPRESSED + b"application/x-gzip\x00no"}),
    (
        "children that are deeper than Python goes",
        {"children": b'[[["a", ' + b'[["a", ' * 2000 + b"null" + b"], null]" * 2000 + b"], null]]"},
    ),
    ("arguments in a type that is not accepted", {"args": b"a: 1", "content_type": "application/x-yaml"}),
]


@pytest.mark.parametrize("columns", [row[1] for row in INFORMING], ids=[row[0] for row in INFORMING])
def test_what_only_informs(
    sqlite: Database, columns: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out; the value and the state are read, and nothing is run."""
    monkeypatch.chdir(tmp_path)
    backend = app_on(sqlite.url, result_extended=True).backend
    put(backend, "t", **{"result": b"1", **columns})
    found, meta = outcome(backend, "t"), backend.get_task_meta("t")
    close(backend)

    assert found == ["SUCCESS", 1, ["SUCCESS"]]
    assert [meta.get(name) for name in (*columns, "stamped_headers") if name != "content_type"] == [None, None]
    assert [*tmp_path.iterdir()] == []


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Something near `data`, or nothing like it."""
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.randrange(40))
    if kind == 1:
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def seeds() -> list[bytes]:
    """Payloads to begin with."""
    tree = b'[[["child", null], [[["grandchild", null], null]]]]'
    error = b'{"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}'
    stamps = b'{"stamped_headers": ["a"], "stamps": {"a": 1}}'
    plain = {"a": [1, "b", 2.5], "c": (None, b"x")}
    pickles = [pickle.dumps(plain, protocol) for protocol in (2, 4, 5)]
    evil = pickle.dumps(Evil(Path("made")))
    return [tree, error, stamps, *pickles, evil, packed(error), packed(evil), packed(tree, "application/x-bz2")]


@pytest.mark.parametrize("seed", range(3))
def test_fuzzed(backend: DatabaseBackend, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random and nearly right bytes and texts in every column: every way to read gives a value or an allowed error."""
    monkeypatch.chdir(tmp_path)
    chance, payloads, unexpected = random.Random(seed), seeds(), []
    for _ in range(40):
        columns: dict[str, Any] = {"status": chance.choice([*sorted(states.ALL_STATES), "PROGRESS"])}
        for name in chance.sample(PAYLOADS, 2):
            columns[name] = mutated(chance, chance.choice(payloads))
        name = chance.choice(TEXTS)
        if name != "status":
            columns[name] = chance.choice(["", JSON, PICKLE, "application/x-yaml", "x" * 50, "🎉", "application/data"])
        put(backend, "t", **columns)
        found = [each for each in outcome(backend, "t") if isinstance(each, Exception)]
        # A failure that could be read is raised as what it says it is.
        said = columns["status"] in states.EXCEPTION_STATES
        unexpected += [
            (columns, error) for error in found if not (isinstance(error, ALLOWED) or (said and raised(error)))
        ]

    assert unexpected == []
    assert [*tmp_path.iterdir()] == []


def raised(error: Exception) -> bool:
    """Whether an error is one that a row has named: those are made here, and never by a failing statement."""
    return error.__traceback__ is not None and type(error).__module__ in ("builtins", "celery.exceptions")


def test_columns_of_any_type(sqlite: Database) -> None:
    """SQLite holds whatever is put there."""
    backend = app_on(sqlite.url, result_extended=True).backend
    found = []
    for value in (7, 10**12, 2.5, "text", "NaN", b"\xff\xfe", None):
        for name in ("date_done", "date_started", "retries", *PAYLOADS, *TEXTS):
            put(backend, "t", **{name: value})
            found += [each for each in outcome(backend, "t") if isinstance(each, Exception)]
    with backend.database.engine.begin() as connection:  # bytes that are no text, where a text is said to be
        connection.execute(sa.text("UPDATE celery_taskmeta SET traceback = CAST(x'fffe' AS TEXT), status = 'SUCCESS'"))
    traceback = backend.get_traceback("t")
    close(backend)

    assert [error for error in found if not isinstance(error, ALLOWED)] == []
    assert traceback == "\\xff\\xfe"


def nested(depth: int, by: str) -> bytes:
    """A group of groups in one another, or of a task after as many others."""
    before, after = {"members": (b'[["g",null],[', b"]]"), "parents": (b'[["a",', b"],null]")}[by]
    return b'[["g",null],[' + before * depth + b'[["a",null],null]' + after * depth + b"]]"


@pytest.mark.parametrize("by", ["members", "parents"])
def test_groups_of_any_depth(sqlite: Database, by: str) -> None:
    """Celery walks what is read of one again and again: either that comes to an end, or the group is not read."""
    backend = app_on(sqlite.url).backend
    found = []
    for depth in (*range(0, 700, 50), *range(700, 1000, 2)):
        payload = nested(depth, by)
        backend.database.rows.groups.put({"taskset_id": "g", "result": payload, "content_type": JSON})
        try:
            found.append(len(str(GroupResult.restore("g", backend=backend, app=backend.app).as_tuple())) > depth)
        except Exception as error:  # noqa: BLE001 - which one is the question
            found.append(type(error))
    close(backend)

    assert (found[0], found[3]) == (True, True)
    assert {*found} == {True, DecodeError}


@pytest.mark.parametrize("by", ["members", "parents"])
def test_children_of_any_depth(sqlite: Database, by: str) -> None:
    """What a task has sent only informs: it is left out."""
    backend = app_on(sqlite.url, result_extended=True).backend
    put(backend, "t", children=b"[" + nested(200, by) + b"]")
    put(backend, "deep", children=b"[" + nested(600, by) + b"]")
    found = [AsyncResult(id_, app=backend.app).children for id_ in ("t", "deep")]
    close(backend)

    assert (len(found[0] or ()), found[1]) == (1, None)


def test_times_that_are_zero(mariadb: Database) -> None:
    """MariaDB holds them, and the driver reads them as texts: they are none, for a task and for a group."""
    backend = app_on(mariadb.url, result_extended=True).backend
    backend.store_result("t", 1, states.SUCCESS)
    group = backend.app.GroupResult("g", [backend.app.AsyncResult("t")])
    group.save()
    with backend.database.engine.begin() as connection:
        connection.execute(sa.text("SET SESSION sql_mode = ''"))
        connection.execute(sa.text("UPDATE celery_taskmeta SET date_done = '0000-00-00', date_started = '2026-00-00'"))
        connection.execute(sa.text("UPDATE celery_tasksetmeta SET date_done = '0000-00-00'"))
    meta = backend.get_task_meta("t")
    row = {"taskset_id": "g", "result": b"1", "date_done": datetime(2026, 1, 1), "content_type": JSON}
    backend.database.rows.groups.put_unless_newer(row)
    found = backend.app.AsyncResult("t").date_done, meta["date_done"], meta["date_started"]
    stored = backend.database.rows.groups.fetch("g")
    close(backend)

    assert found == (None, None, None)
    assert stored is not None
    assert (stored["result"], stored["date_done"]) == (b"1", datetime(2026, 1, 1))


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_times_that_python_does_not_have(postgresql: Database, driver: str) -> None:
    """PostgreSQL holds them: they are read as none, and whoever waits for other results gets those."""
    backend = app_on(postgresql.url.replace("+psycopg", f"+{driver}"), result_extended=True).backend
    times = ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "0001-01-01", "9999-12-31 23:59:59.999999"]
    for number, time in enumerate(times):
        put(backend, time, id=10**6 + number, date_done=time, date_started=time)
    metas = dict(backend.get_many(times, timeout=60))
    found = [
        {backend.get_task_meta(time)["date_done"], *map(metas[time].get, ("date_done", "date_started"))}
        for time in times
    ]
    close(backend)

    assert found == [{None}] * 4 + [{datetime.min}, {datetime.max}]


def test_a_value_that_cannot_be_fetched(postgresql: Database) -> None:
    """The driver's errors after a statement has run are told as SQLAlchemy's too; the connection is still good."""
    backend = app_on(postgresql.url).backend
    with backend.database.impl.connect_quickly(backend.database.engine) as connection:
        with pytest.raises(sa.exc.DataError):
            connection.execute(sa.select(sa.literal_column("'infinity'::timestamp")), {})
        assert list(connection.execute(sa.select(sa.literal_column("1")), {})) == [(1,)]
    close(backend)


def test_a_closed_connection(postgresql: Database) -> None:
    """It gives no cursor: that is a lost connection, as SQLAlchemy tells it, and the next one is a new one."""
    backend = app_on(postgresql.url).backend
    quickly, one = (
        partial(backend.database.impl.connect_quickly, backend.database.engine),
        sa.select(sa.literal_column("1")),
    )
    with quickly() as connection:
        connection._entry.dbapi_connection.close()
        with pytest.raises(sa.exc.DBAPIError) as told:
            connection.execute(one, {})
    with quickly() as connection:
        found = list(connection.execute(one, {}))
    close(backend)

    assert (told.value.connection_invalidated, found) == (True, [(1,)])


def test_a_hostile_row_ends_nobody_elses_wait(backend: DatabaseBackend) -> None:
    """The thread that looks for results lives on."""
    found: list[object] = []

    def wait(task_id: str) -> None:
        try:
            found.append(AsyncResult(task_id, app=backend.app).get(timeout=60))
        except Exception as error:  # noqa: BLE001 - which one is the question
            found.append(type(error))

    threads = [threading.Thread(target=wait, args=(task_id,)) for task_id in ("bad", "good")]
    called: list[object] = []
    AsyncResult("bad", app=backend.app).then(called.append)
    for thread in threads:
        thread.start()
    put(backend, "bad", result=pickle.dumps(Evil(Path("made"))))
    threads[0].join()
    backend.store_result("good", "fine", states.SUCCESS)
    threads[1].join()

    assert (found, called) == ([ContentDisallowed, "fine"], [])


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (pickle.dumps(Evil(Path("made"))), ContentDisallowed),
        (b"7", DecodeError),
        (b'[["g", null], 7]', DecodeError),
        (b'[["g", null], [[{}, null]]]', DecodeError),
        (b'{"a": ', DecodeError),
        (packed(bytes(100_000_000)), PayloadTooLarge),
    ],
)
def test_groups(sqlite: Database, payload: bytes, expected: type[Exception]) -> None:
    """Restoring one is reading too."""
    backend = app_on(sqlite.url, database_max_decompressed_bytes=1_000_000).backend
    backend.database.rows.groups.put({"taskset_id": "g", "result": payload, "content_type": JSON})
    with pytest.raises(expected):
        GroupResult.restore("g", backend=backend, app=backend.app)
    close(backend)
