"""No outcome is lost to what it contains."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import chord, states
from kombu.exceptions import EncodeError

from celery_sql_results import DatabaseBackend, TaskIdTooLong
from celery_sql_results.payload.redaction import REDACTED
from servers import Database
from support import SERIALIZERS, Backends, app_on, close, request

STRANGE = "NUL \x00, lone \ud83d, emoji 🎉, 東京"
REPAIRED = "NUL \\x00, lone \\ud83d, emoji 🎉, 東京"


def test_traceback(backend: DatabaseBackend) -> None:
    """Repaired to what Python would show."""
    backend.store_result("t", ValueError("no"), states.FAILURE, traceback=STRANGE)

    assert (backend.get_state("t"), backend.get_traceback("t")) == ("FAILURE", REPAIRED)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_exception(backends: Backends, serializer: str) -> None:
    """An error is an outcome too, with every serializer."""
    backend = backends(result_serializer=serializer, accept_content=[serializer])
    backend.store_result("t", ValueError("NUL \x00, emoji 🎉"), states.FAILURE)
    backend.store_result("lone", ValueError("lone \ud83d"), states.FAILURE)

    assert repr(backend.get_result("t")) == repr(ValueError("NUL \x00, emoji 🎉"))
    assert backend.get_state("lone") == "FAILURE"


def test_result(backend: DatabaseBackend) -> None:
    """JSON escapes it, so it comes back as it was."""
    backend.store_result("t", {STRANGE: [STRANGE]}, states.SUCCESS)

    assert backend.get_result("t") == {STRANGE: [STRANGE]}


def test_extended_columns(backends: Backends) -> None:
    """Names are repaired and clipped to their column; arguments are payloads."""
    backend = backends(result_extended=True)
    long = "n" * 300
    names: dict[str, Any] = {"task": long, "hostname": STRANGE, "delivery_info": {"routing_key": STRANGE + long}}
    backend.store_result("t", 1, states.SUCCESS, request=request(**names, args=[STRANGE], kwargs={"k": STRANGE}))
    meta = backend.get_task_meta("t")

    assert (meta["name"], meta["worker"]) == (long[:155], REPAIRED)
    assert meta["queue"] == (REPAIRED + long)[:155]
    assert (meta["args"], meta["kwargs"]) == ([STRANGE], {"k": STRANGE})


def test_a_state_of_ones_own_may_be_long(backend: DatabaseBackend) -> None:
    """It is clipped to its column of 50."""
    backend.store_result("t", None, "PROGRESS-" + "🎉" * 100)

    assert backend.get_state("t") == "PROGRESS-" + "🎉" * 41


def test_arguments_that_cannot_be_serialized(backends: Backends) -> None:
    """They only inform: their repr does."""
    backend = backends(result_extended=True)
    backend.store_result("t", 1, states.SUCCESS, request=request(args=[int], kwargs={}))

    assert (backend.get_result("t"), backend.get_task_meta("t")["args"]) == (1, repr([int]))


def test_a_result_that_cannot_be_serialized_is_an_error(backend: DatabaseBackend) -> None:
    """From which Celery makes a failure of the task."""
    with pytest.raises(EncodeError):
        backend.store_result("t", object(), states.SUCCESS)

    assert backend.get_state("t") == "PENDING"


@pytest.mark.parametrize("task_id", ["t" * 155, "🎉" * 155, "%s :name %(a)s ' \" ; -- \\"])
def test_ids(backend: DatabaseBackend, task_id: str) -> None:
    """Up to the width of the column, in characters, whichever they are."""
    backend.store_result(task_id, 1, states.SUCCESS)
    found = [each for each, _ in backend.get_many([task_id], timeout=0)]

    assert (backend.get_result(task_id), found) == (1, [task_id])


def test_an_id_that_is_too_long_is_refused_when_stored(backend: DatabaseBackend) -> None:
    """One clear error, not a clipped id that nobody finds."""
    with pytest.raises(TaskIdTooLong, match=r"the task id 'tttt.*… has 156 characters, but the column holds 155"):
        backend.store_result("t" * 156, 1, states.SUCCESS)


def test_an_id_that_is_too_long_is_refused_when_published(backend: DatabaseBackend) -> None:
    """The task is not sent: it would run, and its result be lost."""
    app = backend.app
    app.send_task("shop.pay", task_id="t" * 155)
    with pytest.raises(TaskIdTooLong):
        app.send_task("shop.pay", task_id="t" * 156)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        sent = [queue.get_nowait().headers["id"] for _ in range(queue.qsize())]
        queue.close()

    assert sent == ["t" * 155]


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_4_mb(backends: Backends, compression: str | None) -> None:
    """Of a result, and of a traceback."""
    backend = backends(result_compression=compression)
    value = "x" * 4_000_000
    backend.store_result("t", value, states.SUCCESS, traceback=value)
    meta = backend.get_task_meta("t")

    assert (meta["result"] == value, meta["traceback"] == value) == (True, True)  # without showing 4 MB


def test_100_mb(database: Database, backends: Backends) -> None:
    """Of a result; MariaDB and MySQL must be told that they may get so much."""
    if database.kind == "mariadb":
        (limit,) = database.execute("SELECT @@global.max_allowed_packet")[0]
        database.execute("SET GLOBAL max_allowed_packet = 1073741824")
    backend = backends()
    value = "x" * 100_000_000
    try:
        backend.store_result("t", value, states.SUCCESS)
        found = backend.get_result("t")
    finally:
        if database.kind == "mariadb":
            database.execute(f"SET GLOBAL max_allowed_packet = {limit}")

    assert (len(found), set(found)) == (100_000_000, {"x"})  # without showing them


def test_emoji_in_names(backends: Backends) -> None:
    """MariaDB's own character set would refuse them."""
    backend = backends(result_extended=True)
    names: dict[str, Any] = {
        "task": "pay 💶",
        "hostname": "celery@🐇",
        "group": "🎉",
        "parent_id": "👪",
        "root_id": "🌳",
    }
    backend.store_result("🎁", "🎂", "🎉", request=request("🎁", **names, delivery_info={"routing_key": "🚶🚶"}))
    meta = backend.get_task_meta("🎁")
    columns = ("name", "worker", "group_id", "parent_id", "root_id", "queue", "status", "result")

    assert [meta[column] for column in columns] == [*names.values(), "🚶🚶", "🎉", "🎂"]


@pytest.mark.parametrize("value", [b"\xff\xfe\x00", [b"\x80", {"a": b"\xc3"}]])
def test_bytes_that_are_no_text(backend: DatabaseBackend, value: object) -> None:
    """JSON carries them as base64."""
    backend.store_result("t", value, states.SUCCESS)

    assert backend.get_result("t") == value


class Awkward(Exception):
    """Raises whenever somebody looks at it."""

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no arguments")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_an_exception_of_which_nothing_can_be_stored(backends: Backends, serializer: str) -> None:
    """At least its class is."""
    backend = backends(result_serializer=serializer, accept_content=[serializer])
    backend.mark_as_failure("t", Awkward())

    found = backend.get_result("t")

    assert backend.get_state("t") == states.FAILURE
    assert type(found) is Awkward if serializer == "pickle" else "Awkward" in str(found)


def test_redacted_arguments(backends: Backends, database: Database) -> None:
    """By the parameters of the task; the secret is nowhere in the table."""
    backend = backends(result_extended=True, database_redact=["card"])

    @backend.app.task(name="shop.pay", shared=False)
    def pay(amount: int, card: str, **more: object) -> None:
        """Never run here."""

    backend.store_result(
        "t", 1, states.SUCCESS, request=request(args=[5, "secret"], kwargs={"a": [{"card": "secret"}]})
    )
    meta = backend.get_task_meta("t")
    columns = "args, kwargs" if database.kind in ("mariadb", "firebird") else "CAST(args AS TEXT), CAST(kwargs AS TEXT)"
    rows = database.execute(f"SELECT {columns} FROM celery_taskmeta")

    assert (meta["args"], meta["kwargs"]) == ([5, "[redacted]"], {"a": [{"card": "[redacted]"}]})
    assert [text for text in ("secret", b"secret".hex()) if text in repr(rows)] == []


@pytest.mark.parametrize(
    ("redact", "stored"),
    [
        (["card"], [REDACTED, REDACTED, 5]),
        (lambda _, args, kwargs: ([*args[:1], REDACTED, *args[2:]], kwargs), [REDACTED, REDACTED, 5]),
    ],
    ids=["names", "callable"],
)
def test_redacted_arguments_of_a_chain_that_failed(sqlite: Database, redact: Any, stored: list[Any]) -> None:
    """They lack the first, the result of the task that failed: the others still have their names."""
    backend = app_on(sqlite.url, result_extended=True, database_redact=redact).backend

    @backend.app.task(name="shop.pay", shared=False)
    def pay(customer: str, card: str, amount: int) -> None:
        """Never run here."""

    partial, whole = pay.s("secret", 5).set(task_id="partial"), pay.si("ann", "secret", 5).set(task_id="whole")
    backend.mark_as_failure("t", ValueError("no"), request=request(chain=sent([whole, partial]), errbacks=None))
    arguments = [backend.get_task_meta(id_)["args"] for id_ in ("partial", "whole")]
    close(backend)

    assert arguments == [stored, ["ann", *stored[1:]]]


def test_redacted_arguments_of_a_chord_in_a_chain_that_failed(sqlite: Database) -> None:
    """The arguments of a chord are signatures, which have arguments of their own."""
    backend = app_on(sqlite.url, result_extended=True, database_redact=["card"]).backend
    add = backend.app.signature("shop.add", ("secret",), {"card": "secret", "of": 1})
    joined = chord([add, add], add).set(task_id="chord")
    backend.mark_as_failure("t", ValueError("no"), request=request(chain=sent([joined]), errbacks=None))
    kwargs = backend.get_task_meta("chord")["kwargs"]
    close(backend)

    assert kwargs["body"]["args"] == REDACTED
    assert kwargs["body"]["kwargs"] == {"card": REDACTED, "of": 1}
    assert "secret" not in repr(kwargs)


def sent(chain: list[Any]) -> Any:
    """The rest of a chain as its message brings it."""
    return json.loads(json.dumps(chain))


def test_all_fields_at_the_highest(backends: Backends) -> None:
    """Retries are an INTEGER."""
    backend = backends(result_extended=True)
    backend.store_result("t", 1, states.SUCCESS, request=request(retries=2**31 - 1))

    assert backend.get_task_meta("t")["retries"] == 2**31 - 1
