"""A small shop, whose results the pages show: what workers have stored there, and when, seen from now."""

from __future__ import annotations

import importlib
import logging
import os
import sqlite3
import sys
import time
import uuid
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery, states
from celery.app.task import Context
from celery.result import AsyncResult, GroupResult

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now

#: The project.
SHOP = """\
from celery import Celery

app = Celery("shop", broker="memory://", backend="sql+sqlite:///results.db")
app.conf.update(result_extended=True, result_expires=7 * 24 * 3600, database_spool_dir="{folder}/spool")
"""
#: The tables that Celery's own backend makes.
OLD = """
CREATE TABLE celery_taskmeta (
    id INTEGER NOT NULL PRIMARY KEY, task_id VARCHAR(155) UNIQUE, status VARCHAR(50), result BLOB, date_done DATETIME,
    traceback TEXT, children BLOB, name VARCHAR(155), args BLOB, kwargs BLOB, worker VARCHAR(155), retries INTEGER,
    queue VARCHAR(155), stamps BLOB
);
CREATE TABLE celery_tasksetmeta (
    id INTEGER NOT NULL PRIMARY KEY, taskset_id VARCHAR(155) UNIQUE, result BLOB, date_done DATETIME
);
"""
VERSIONS = "celery-sql-results 0.1.0, celery 5.7.0, sqlalchemy 2.0.51, pysqlite 2.6.0"


class GatewayTimeout(Exception):
    """The bank does not answer."""


class NoSuchAddress(Exception):
    """A mail cannot be delivered."""


# Celery names a class by its module.
GatewayTimeout.__module__ = NoSuchAddress.__module__ = "shop.errors"


def id_of(name: str) -> str:
    """An id that is always the same."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"shop:{name}"))


def make(folder: Path) -> datetime:
    """Make the shop in an empty folder, and return the time that all of its times are reckoned from, in UTC.

    This belongs into a process of its own: threads of the backends that are made here would go on working.
    """
    os.chdir(folder)
    (folder / "spool").mkdir(mode=0o700)
    (folder / "shop.py").write_text(SHOP.format(folder=folder), "utf-8")
    sys.path.insert(0, str(folder))
    world = World(folder, importlib.import_module("shop").app)
    world.make()
    return world.now


class World:
    """The results of the shop.

    Args:
        folder: the working directory.
        app: of the project.
    """

    def __init__(self, folder: Path, app: Celery) -> None:
        self._folder, self._app = folder, app
        self._backend: DatabaseBackend = app.backend
        self.now: datetime = utc_now().replace(microsecond=0)

    def make(self) -> None:
        """Store it all."""
        for number in range(48):
            self._usual(number)
        self._order()
        self._failures()
        self._at_work()
        self._chords()
        self._workers()
        self._old_tables()
        self._spool()

    def _store(self, name: str, task: str, ago: float, ran: float = 1, value: Any = None, **more: Any) -> None:
        """Store a result that ended so many minutes ago, and ran so many seconds."""
        state = more.pop("state", states.SUCCESS)
        known = {"hostname": "celery@shop-1", "args": [], "kwargs": {}, "delivery_info": {"routing_key": "orders"}}
        waited = more.pop("waited", 0.2)
        request = Context({"id": id_of(name), "task": task, "root_id": id_of(name), **known, **more})
        request.children.extend(AsyncResult(id_of(each), app=self._app) for each in more.get("sent", ()))
        trace = more.get("trace")
        self._backend.store_result(id_of(name), value, state, traceback=trace, request=request)
        end = self.now - timedelta(minutes=ago)
        began = end - timedelta(seconds=ran)
        times = {"date_queued": began - timedelta(seconds=waited), "date_started": began, "date_done": end}
        if state not in states.READY_STATES:
            times |= {"date_queued": end - timedelta(seconds=waited), "date_started": end, "date_done": None}
        self._set(self._backend.models.task, "task_id", id_of(name), times)

    def _set(self, table: sa.Table, key: str, value: str, known: dict[str, Any]) -> None:
        with self._backend.database.engine.begin() as connection:
            connection.execute(table.update().where(table.c[key] == value).values(known))

    def _fail(self, name: str, task: str, ago: float, error: Exception, line: str, **more: Any) -> None:
        trace = (
            'Traceback (most recent call last):\n  File "/srv/shop/tasks.py", line 41, in '
            f"{task.partition('.')[2]}\n    {line}\n{type(error).__module__}.{type(error).__name__}: {error}\n"
        )
        self._store(name, task, ago, value=error, state=states.FAILURE, trace=trace, **more)

    def _usual(self, number: int) -> None:
        """What goes well: some tasks are quick, and few are slow."""
        ago = 2.5 + number * (2.2 if number < 24 else 25)
        worker = f"celery@shop-{1 + number % 2}"
        if number % 4 == 3:
            count = {"args": [f"shelf-{number % 5}"], "delivery_info": {"routing_key": "stock"}, "waited": 4}
            self._store(f"usual-{number}", "stock.count", ago, 20.5 + number, number * 3, hostname=worker, **count)
        elif number % 4 == 1:
            mail = {"args": [f"customer-{number}@example.com"], "delivery_info": {"routing_key": "mail"}}
            self._store(f"usual-{number}", "mail.receipt", ago, 0.2 + number / 100, True, hostname=worker, **mail)
        else:
            paid = {"state": "paid", "order": 3800 + number}
            self._store(f"usual-{number}", "shop.pay", ago, 0.8 + number / 20, paid, args=[3800 + number])

    def _order(self) -> None:
        """A task that has sent others, one of which has failed."""
        root = {"root_id": id_of("order")}
        kwargs = {"customer": "Ada", "items": ["tea", "cups"]}
        self._store("order", "shop.order", 6, 0.4, 3917, args=[3917], kwargs=kwargs, sent=["pay", "receipt"], **root)
        below = {**root, "parent_id": id_of("order"), "retries": 2, "waited": 12, "ran": 30}
        error = GatewayTimeout("no answer from pay.example.com in 30 s")
        call = {"args": [3917], "kwargs": {"cents": 1790}, "hostname": "celery@shop-2"}
        self._fail("pay", "shop.pay", 5, error, "answer = bank.charge(order, cents, timeout=30)", **call, **below)
        mail = {"parent_id": id_of("order"), "delivery_info": {"routing_key": "mail"}, **root}
        self._store("receipt", "mail.receipt", 5.8, 0.31, True, args=["ada@example.com"], **mail)

    def _failures(self) -> None:
        timeout = GatewayTimeout("no answer from pay.example.com in 30 s")
        for number, ago in enumerate((9, 14, 31, 95, 96)):
            call = {"args": [3870 + number], "kwargs": {"cents": 500}, "ran": 30, "hostname": "celery@shop-2"}
            self._fail(f"timeout-{number}", "shop.pay", ago, timeout, "answer = bank.charge(order)", **call)
        for number, ago in enumerate((22, 400)):
            unknown = NoSuchAddress(f"user-{number}@example.org")
            call = {"args": [f"user-{number}@example.org"], "delivery_info": {"routing_key": "mail"}}
            self._fail(f"mail-{number}", "mail.receipt", ago, unknown, "smtp.send(message)", ran=0.6, **call)

    def _at_work(self) -> None:
        """Tasks that have begun and not ended: one of a worker that is there, one of another that is not."""
        for name, worker, ago in (("import", "celery@shop-1", 125), ("report", "celery@shop-3", 80)):
            call = {"hostname": worker, "delivery_info": {"routing_key": "slow"}, "args": ["2026-02"]}
            self._store(name, f"shop.{name}", ago, state=states.STARTED, **call)

    def _chords(self) -> None:
        """One waits for a part that is gone, as its message was lost."""
        parts = [id_of(f"pack-{number}") for number in range(4)]
        header = GroupResult(id_of("chord"), [AsyncResult(each, app=self._app) for each in parts])
        body = self._app.signature("shop.invoice", task_id=id_of("invoice"))
        self._backend.apply_chord((header.id, header.results), body)
        where = {"delivery_info": {"routing_key": "orders"}}
        for number in range(3):
            of = {"group": header.id, "chord": body, "root_id": parts[number], "group_index": number}
            request = Context({"id": parts[number], "task": "shop.pack", "hostname": "celery@shop-1", **where, **of})
            self._backend.mark_as_done(parts[number], number, request=request)
            times = {"date_done": self.now - timedelta(minutes=41, seconds=-number)}
            times |= {"date_started": times["date_done"] - timedelta(seconds=5)}
            self._set(self._backend.models.task, "task_id", parts[number], times)
        began = {"date_created": self.now - timedelta(minutes=42)}
        self._set(self._backend.models.chords, "group_id", header.id, began)

    def _workers(self) -> None:
        rows: Any = self._backend.database.rows
        for number, seen in enumerate((4, 11, 75 * 60), start=1):
            began = self.now - timedelta(hours=20, minutes=number)
            run = {"name": f"celery@shop-{number}", "run_id": id_of(f"run-{number}"), "host": f"shop-{number}"}
            run |= {"pid": 700 + number, "app": "shop", "versions": VERSIONS, "spooled": 0, "concurrency": 4}
            rows.workers.seen({**run, "date_started": began, "clock": self.now, "busy": int(number != 2)})
            times = {"date_seen": self.now - timedelta(seconds=seen)}
            self._set(self._backend.models.workers, "run_id", id_of(f"run-{number}"), times)
        self._store("elsewhere", "mail.receipt", 3.4, 0.3, True, hostname="celery@old-1")

    def _spool(self) -> None:
        """A result that came while the database took none."""
        settings = {"database_retry_window": 0.01, "database_engine_options": {"connect_args": {"timeout": 0}}}
        conf, where = self._app.conf, {"delivery_info": {"routing_key": "orders"}}
        app = Celery("shop", broker="memory://", backend=conf.result_backend, set_as_current=False)
        app.conf.update(result_extended=True, database_spool_dir=conf.database_spool_dir, **settings)
        backend: DatabaseBackend = app.backend
        with closing(sqlite3.connect(self._folder / "results.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            logging.disable(logging.WARNING)  # that it is kept
            request = Context(
                {"id": id_of("spooled"), "task": "shop.pay", "hostname": "celery@shop-1", "args": [3944], **where}
            )
            backend.store_result(id_of("spooled"), "paid", states.SUCCESS, request=request)
            logging.disable(logging.NOTSET)
        app.close()
        for entry in Path(conf.database_spool_dir).glob("*/*.json"):
            os.utime(entry, times=(time.time() - 90,) * 2)

    def _old_tables(self) -> None:
        """Those that Celery's own backend has made."""
        with closing(sqlite3.connect(self._folder / "old.db")) as old:
            old.executescript(OLD)
