"""Store one of everything with the Celery that is installed here, and describe what that left in the database.

Run by ``make.py`` in an environment of one release; it needs nothing of this project. Each task id reads
``<serializer>[-extended]-<case>``. The clock stands still, so that a second run finds the same, except that Celery is
imported at ``IMPORTED`` and stores from ``STORED`` on (5.4 evaluates the default of ``date_done`` once, at import), and
that each flush takes a second (SQLAlchemy writes no value that equals the one before, whatever its time zone).

    python produce.py db+sqlite:///results.db out.json
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import pickle
import pickletools
import sys
import types
import uuid
from collections.abc import Iterator
from typing import Any

import time_machine

IMPORTED = dt.datetime(2026, 3, 1, 4, 30, tzinfo=dt.timezone.utc)
STORED = dt.datetime(2026, 3, 1, 5, 30, tzinfo=dt.timezone.utc)
CLOCK = time_machine.travel(IMPORTED, tick=False).start()

import celery  # noqa: E402  the clock must stand before Celery is imported
from celery import states  # noqa: E402
from celery.app.task import Context  # noqa: E402
from celery.backends.database import models  # noqa: E402
from celery.result import AsyncResult, GroupResult  # noqa: E402
from sqlalchemy import create_engine, event, text  # noqa: E402
from sqlalchemy.dialects import mysql  # noqa: E402
from sqlalchemy.engine import Engine  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402
from sqlalchemy.schema import CreateIndex, CreateTable  # noqa: E402

CLOCK.move_to(STORED)

SERIALIZERS = ("json", "pickle", "yaml", "msgpack")
TABLES = ("celery_taskmeta", "celery_tasksetmeta")
RELEASE = tuple(int(part) for part in celery.__version__.split(".")[:2])
STAMPS = {"stamped_headers": ["tenant", "trace"], "stamps": {"tenant": ["acme"], "trace": ["t-1", "t-2"]}}
ABOUT = ("traceback", "children", "name", "args", "kwargs", "worker", "retries", "queue", *STAMPS, *STAMPS["stamps"])
# Latin 1, as wider text does not fit: MariaDB gives tables that do not say otherwise this character set.
TRACEBACK = 'Traceback (most recent call last):\n  File "shop/tasks.py", line 7, in pay\nValueError: zu wenig für Zoë\n'

# A module that only the worker has: whoever reads its pickles elsewhere cannot import it.
shop = types.ModuleType("shop")


class Basket:
    """An object of the user's own that a task returned."""

    def __init__(self, items: int) -> None:
        self.items = items

    def __repr__(self) -> str:
        return f"shop.Basket({self.items})"


class OutOfStock(Exception):
    """An exception of the user's own."""


class Unpicklable(Exception):
    """An exception that no pickle can hold; Celery wraps it."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(code)
        self.callback = lambda: hint


for cls in (Basket, OutOfStock, Unpicklable):
    cls.__module__ = "shop"
    cls.__qualname__ = cls.__name__
    setattr(shop, cls.__name__, cls)
sys.modules["shop"] = shop

PLAIN: dict[str, Any] = {
    "none": None,
    "true": True,
    "int": 42,
    "large-int": 2**40,
    "float": 2.5,
    "text": "naïve 東京 🎉",
    "nested": {"a": [1, 2.5, None, {"b": ["ö", True]}], "c": {}},
    "empty": [],
    "empty-map": {},
}

# What the serializers disagree about; up to 5.6 the result is pickled whatever the serializer.
SPECIAL: dict[str, Any] = {
    "bytes": b"\x00\xff\x80bytes",
    "tuple": (1, ("two", 3.0)),
    "int-keys": {1: "one", 2: "two"},
    "set": {1, 2, 3},
    "datetime": dt.datetime(2026, 2, 28, 12, 0, tzinfo=dt.timezone.utc),
    "decimal": decimal.Decimal("9.90"),
    "uuid": uuid.UUID(int=7),
    "object": Basket(3),
}


def app_for(url: str, serializer: str, extended: bool, **settings: Any) -> celery.Celery:
    """An app of its own for each combination of settings."""
    app = celery.Celery("shop", broker="memory://", backend=url, set_as_current=False)
    app.conf.update(result_serializer=serializer, result_extended=extended, accept_content=list(SERIALIZERS))
    app.conf.update(settings)
    app.prefix = f"{serializer}-extended" if extended else serializer
    return app


def request_of(app: celery.Celery, task_id: str, **more: Any) -> Context:
    """What a worker knows of a task while it runs."""
    return Context(
        id=task_id,
        task="shop.tasks.pay",
        args=[1, "zwei"],
        kwargs={"currency": "€"},
        hostname="celery@shop-1",
        retries=1,
        delivery_info={"routing_key": "orders"},
        **more,
    )


def store_values(app: celery.Celery, prefix: str, values: dict[str, Any]) -> dict[str, str]:
    """Store each value as a SUCCESS; return the error of each that this release refuses."""
    refused = {}
    for name, value in values.items():
        task_id = f"{prefix}-{name}"
        try:
            if RELEASE >= (5, 7):  # as the release itself would, but before a sequence is advanced for nothing
                app.backend.encode(app.backend.prepare_value(value))
            app.backend.store_result(task_id, value, states.SUCCESS, request=request_of(app, task_id))
        except Exception as error:  # noqa: BLE001  whichever error the serializer chose
            refused[task_id] = type(error).__name__
    return refused


def store_states(app: celery.Celery, prefix: str) -> None:
    """Store every state in the way a worker comes to it."""
    backend = app.backend

    def asked(name: str) -> tuple[str, Context]:
        return f"{prefix}-{name}", request_of(app, f"{prefix}-{name}")

    for name in ("pending", "received", "rejected", "ignored"):
        task_id, request = asked(name)
        backend.store_result(task_id, None, name.upper(), request=request)
    task_id, request = asked("started")
    backend.store_result(task_id, {"pid": 4242, "hostname": "celery@shop-1"}, states.STARTED, request=request)
    task_id, request = asked("progress")
    backend.store_result(task_id, {"done": 3, "of": 10}, "PROGRESS", request=request)
    task_id, request = asked("started-retry")
    backend.store_result(task_id, {"pid": 4242, "hostname": "celery@shop-1"}, states.STARTED, request=request)
    backend.mark_as_retry(task_id, ValueError("later"), traceback=TRACEBACK, request=request)
    task_id, request = asked("revoked")
    backend.mark_as_revoked(task_id, "terminated", request=request)
    store_failures(app, prefix)


def store_failures(app: celery.Celery, prefix: str) -> None:
    """Store failures with exceptions of Python's, of the user's, and one that cannot be pickled."""
    errors = {
        "failure": ValueError("zu wenig", 3),
        "failure-key": KeyError("sku-1"),
        "failure-own": OutOfStock("sku-2", {"left": 0}),
        "failure-unpicklable": Unpicklable(7, hint="no"),
        "failure-no-request": ValueError("nobody asked"),
    }
    for name, error in errors.items():
        task_id = f"{prefix}-{name}"
        request = None if name == "failure-no-request" else request_of(app, task_id)
        app.backend.mark_as_failure(task_id, error, traceback=TRACEBACK, request=request)


def store_relations(app: celery.Celery, prefix: str) -> None:
    """Store children, stamps, and a result that is itself the result of another task."""
    children = [app.AsyncResult(f"{prefix}-child-{n}") for n in range(2)]
    children.append(app.GroupResult(f"{prefix}-child-group", [app.AsyncResult(f"{prefix}-child-3")]))
    task_id = f"{prefix}-children"
    request = request_of(app, task_id)
    request.children.extend(children)
    app.backend.store_result(task_id, "ok", states.SUCCESS, request=request)
    task_id = f"{prefix}-stamped"
    app.backend.store_result(task_id, "ok", states.SUCCESS, request=request_of(app, task_id, **STAMPS))
    task_id = f"{prefix}-result-of-a-task"
    app.backend.store_result(task_id, app.AsyncResult(f"{prefix}-other"), states.SUCCESS)


def store_groups(app: celery.Celery, prefix: str) -> None:
    """Save groups: of three, of none, in a group, with a parent, and of the classes that belong to no app."""
    members = [app.AsyncResult(f"{prefix}-{name}") for name in ("int", "text", "none")]
    inner = app.GroupResult(f"{prefix}-group-inner", members[1:])
    parent = app.AsyncResult(f"{prefix}-float")
    app.GroupResult(f"{prefix}-group", members).save(app.backend)
    app.GroupResult(f"{prefix}-group-empty", []).save(app.backend)
    app.GroupResult(f"{prefix}-group-nested", [members[0], inner]).save(app.backend)
    app.GroupResult(f"{prefix}-group-parent", members, parent=parent).save(app.backend)
    unbound = [AsyncResult(member.id, app=app) for member in members]
    GroupResult(f"{prefix}-group-unbound", unbound, app=app).save(app.backend)


def store_all(url: str) -> tuple[list[celery.Celery], dict[str, str]]:
    """Store everything; return the apps, one per prefix of the ids, and what was refused."""
    apps, refused = [], {}
    for serializer in SERIALIZERS:
        for extended in (False, True):
            app = app_for(url, serializer, extended)
            apps.append(app)
            store_relations(app, app.prefix)
            if serializer in ("json", "pickle"):
                store_states(app, app.prefix)
            if extended:
                store_values(app, app.prefix, {"nested": PLAIN["nested"]})
            else:
                store_values(app, app.prefix, PLAIN)
                store_groups(app, app.prefix)
                refused.update(store_values(app, app.prefix, SPECIAL))
    away = app_for(url, "json", False, timezone="America/Los_Angeles")
    store_values(away, away.prefix, {"los-angeles": "wall clock"})
    return apps, refused


def record_ddl(statements: list[str]) -> None:
    """Collect each DDL statement that any engine of this process sends from now on."""

    @event.listens_for(Engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.split(None, 1)[0].upper() in ("CREATE", "ALTER", "COMMENT") and statement not in statements:
            statements.append(statement)


def pass_time() -> None:
    """Let each flush of a session take a second from now on."""

    @event.listens_for(Session, "after_flush")
    def tick(*_: Any) -> None:
        CLOCK.shift(1)


def ddl_of_mysql() -> list[str]:
    """What this release sends to a real MySQL, which has no sequences. Compiled only: there was no MySQL to ask."""
    dialect = mysql.dialect()
    statements = []
    for table in (models.Task.__table__, models.TaskSet.__table__):
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements.extend(str(CreateIndex(index).compile(dialect=dialect)) for index in indexes)
    return statements


def rows_of(engine: Engine, table: str) -> Iterator[dict[str, Any]]:
    """The rows of a table as the database holds them, without the columns that are NULL."""
    with engine.connect() as connection:
        for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY id")):
            values = {name: portable(name, value) for name, value in row._mapping.items()}
            yield {name: value for name, value in values.items() if value is not None}


def portable(name: str, value: Any) -> Any:
    """A stored value in JSON: bytes as base64, timestamps as ISO 8601 (SQLite has them as text)."""
    if isinstance(value, (bytes, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if name == "date_done" and value is not None:
        return dt.datetime.fromisoformat(str(value)).isoformat()
    return value


def plainness(stored: str | None) -> bool | None:
    """Whether stored bytes are a pickle without globals (True), with (False), or no pickle at all (None)."""
    payload = base64.b64decode(stored or "")
    if not payload.startswith(b"\x80"):
        return None
    try:
        opcodes = [opcode.name for opcode, _, _ in pickletools.genops(payload)]
        pickle.loads(payload)
    except Exception:  # noqa: BLE001  msgpack's small maps start with the same byte
        return None
    return not {"GLOBAL", "STACK_GLOBAL", "INST", "REDUCE", "BUILD", "NEWOBJ"} & set(opcodes)


def described(value: Any) -> dict[str, Any]:
    """A value in JSON, or what can be said of it where JSON cannot hold it."""
    if isinstance(value, BaseException):
        return {"exception": type(value).__name__, "module": type(value).__module__, "args": repr(value.args)}
    try:
        same = repr(json.loads(json.dumps(value))) == repr(value)
    except (TypeError, ValueError):
        same = False
    return {"value": value} if same else {"repr": repr(value)}


def meaning(app: celery.Celery, row: dict[str, Any]) -> dict[str, Any]:
    """What a task's row says according to the release that wrote it."""
    said = {"state": row["status"], "serializer": app.conf.result_serializer, "extended": app.conf.result_extended}
    said["plain"] = plainness(row.get("result"))
    try:
        meta = app.backend.get_task_meta(row["task_id"])
    except Exception as error:  # noqa: BLE001  whichever error the serializer chose
        return {**said, "unreadable": type(error).__name__}
    said.update(described(meta["result"]))
    said["about"] = {name: meta[name] for name in ABOUT if meta.get(name) is not None}
    return said


def meaning_of_group(app: celery.Celery, row: dict[str, Any]) -> dict[str, Any]:
    """What a group's row says according to the release that wrote it."""
    result = app.backend.get_group_meta(row["taskset_id"])["result"]
    return {
        "serializer": app.conf.result_serializer,
        "tuple": result.as_tuple(),
        "plain": plainness(row.get("result")),
    }


def app_of(apps: list[celery.Celery], stored_id: str) -> celery.Celery:
    """The app that stored an id: the one with the longest prefix that fits."""
    fitting = [app for app in apps if stored_id.startswith(app.prefix + "-")]
    return max(fitting, key=lambda app: len(app.prefix))


def report(url: str) -> dict[str, Any]:
    """Everything that ``make.py`` needs to know."""
    ddl: list[str] = []
    record_ddl(ddl)
    pass_time()
    apps, refused = store_all(url)
    engine = create_engine(url.partition("+")[2])
    rows = {table: list(rows_of(engine, table)) for table in TABLES}
    tasks, groups = (rows[table] for table in TABLES)
    return {
        "ddl": ddl,
        "ddl_of_mysql": ddl_of_mysql(),
        "rows": rows,
        "refused": refused,
        "expected": {
            "tasks": {row["task_id"]: meaning(app_of(apps, row["task_id"]), row) for row in tasks},
            "groups": {row["taskset_id"]: meaning_of_group(app_of(apps, row["taskset_id"]), row) for row in groups},
        },
    }


if __name__ == "__main__":
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(report(sys.argv[1]), file)
