"""What is recorded of a task beside its outcome, with the defaults, is kept by whatever is stored later."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery, states
from celery.app.task import Context
from celery.utils.objects import Bunch
from sqlalchemy.orm import DeclarativeBase

from celery_sql_results import DatabaseBackend
from celery_sql_results.models import utc_now
from celery_sql_results.payload import SENT, of_sending
from servers import Database
from support import Backends, app_on, close, request

KNOWN = {
    "name": "shop.pay",
    "worker": "celery@shop-1",
    "retries": 2,
    "queue": "orders",
    "parent_id": "the-parent",
    "root_id": "the-root",
    "group_id": "the-group",
}


def told(backend: DatabaseBackend, task_id: str = "t") -> dict[str, Any]:
    """What is known of a task."""
    found = backend.recorded(task_id)
    return {name: found[name] for name in KNOWN}


def test_it_is_recorded(backend: DatabaseBackend) -> None:
    backend.store_result("t", 1, states.SUCCESS, request=request())
    found = backend.app.AsyncResult("t")

    assert told(backend) == KNOWN
    assert {name: getattr(found, name) for name in KNOWN} == KNOWN
    assert (found.args, found.kwargs) == (None, None)


def test_a_later_write_that_knows_nothing_takes_nothing_away(backend: DatabaseBackend) -> None:
    """One without a request, and one of a request that has less."""
    backend.store_result("t", None, states.STARTED, request=request())
    started = backend.app.AsyncResult("t").date_started
    backend.store_result("t", 1, "PROGRESS")
    backend.store_result("t", ValueError(), states.FAILURE, request=Context(id="t"))

    assert told(backend) == KNOWN
    assert (backend.app.AsyncResult("t").date_started, backend.get_state("t")) == (started, states.FAILURE)


def test_a_result_that_was_read_stays_as_it_was(backend: DatabaseBackend) -> None:
    """What is asked for later brings no state of another outcome with it."""
    backend.store_result("t", ValueError("no"), states.FAILURE, request=request())
    found = backend.app.AsyncResult("t")
    before = found.state, repr(found.result)
    backend.store_result("t", 1, states.SUCCESS, request=request())

    assert found.name == "shop.pay"
    assert (found.state, repr(found.result)) == before


def test_who_runs_no_task_knows_nothing_of_one(backend: DatabaseBackend) -> None:
    """As who calls `update_state` of a task from outside: its request is that of no task."""
    backend.store_result("t", None, states.STARTED, request=request())
    backend.store_result("t", 1, "PROGRESS", request=Context())

    assert told(backend) == KNOWN


def test_a_task_that_no_worker_knows(backend: DatabaseBackend) -> None:
    """Its request has a name and no id: https://github.com/celery/celery/blob/v5.5.3/celery/worker/consumer/consumer.py"""
    unknown = Bunch(name="shop.gone", chord=None, root_id="r", correlation_id="t", reply_to=None, errbacks=None)
    backend.mark_as_failure("t", ValueError("shop.gone"), request=unknown)
    found = backend.app.AsyncResult("t")

    assert (found.state, found.name, found.root_id) == (states.FAILURE, "shop.gone", "r")


def test_a_sent_id_that_is_no_text(backend: DatabaseBackend) -> None:
    """It comes as a UUID, as whoever has sent the task gave it."""
    task_id = uuid.uuid4()
    sent = {SENT: of_sending(str(task_id))}
    backend.store_result(task_id, 1, states.SUCCESS, request=request(task_id, **sent))  # type: ignore[arg-type]

    assert backend.app.AsyncResult(str(task_id)).date_queued is not None


def test_a_later_write_that_knows_more_adds_it(backend: DatabaseBackend) -> None:
    backend.store_result("t", 1, "PROGRESS")
    backend.store_result("t", 1, states.SUCCESS, request=request())

    assert told(backend) == KNOWN


def test_what_may_not_be_replaced_is_not_told_anew(backend: DatabaseBackend) -> None:
    """A task that has succeeded and is delivered again, to another worker."""
    backend.store_result("t", 1, states.SUCCESS, request=request())
    backend.store_result("t", None, states.STARTED, request=request(hostname="celery@shop-2"))
    backend.store_result("t", ValueError(), states.FAILURE, request=request(hostname="celery@shop-2", retries=3))

    assert told(backend) == KNOWN


def test_a_state_that_is_stored_of_another_task(backend: DatabaseBackend) -> None:
    """`update_state(task_id=…)` hands over the request of the task that calls it."""
    backend.store_result("another", 1, "PROGRESS", request=request())

    assert told(backend, "another") == dict.fromkeys(KNOWN)


def test_an_id_that_is_no_text(backend: DatabaseBackend) -> None:
    backend.store_result("7", 1, states.SUCCESS, request=request(7))  # type: ignore[arg-type]

    assert told(backend, "7") == KNOWN


def test_columns_that_are_not_there(database: Database, backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody else's table: what it lacks is left out, and the rest recorded."""
    before = backends()
    before.store_result("before", 1, states.SUCCESS)
    close(before)
    for column in ("queue", "date_queued"):
        database.execute(f"ALTER TABLE celery_taskmeta DROP {column}")
    newer = "UPDATE celery_taskmeta_version SET version_num = '9999'"  # of a release to come, after which nobody mends
    database.execute(newer)
    backend = backends()
    backend.store_result("t", 1, states.SUCCESS, request=request())
    there = {name: value for name, value in KNOWN.items() if name != "queue"}

    assert {name: backend.recorded("t").get(name) for name in KNOWN} == {**there, "queue": None}
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


class OwnBase(DeclarativeBase):
    """Of the classes of an application."""


class OwnTask(OwnBase):
    """Its results: what each release of Celery has made, a worker of its own kind, and no name."""

    __tablename__ = "celery_taskmeta"

    id = sa.Column(sa.Integer, sa.Sequence("task_id_sequence"), primary_key=True, autoincrement=True)
    task_id = sa.Column(sa.String(155), unique=True)
    status = sa.Column(sa.String(50))
    result = sa.Column(sa.LargeBinary)
    date_done = sa.Column(sa.DateTime)
    traceback = sa.Column(sa.Text)
    worker = sa.Column(sa.String(20))

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id


class OwnBackend(DatabaseBackend):
    """Keeps its own worker."""

    task_cls = OwnTask

    def _update_result(self, task: Any, *args: Any, **kwargs: Any) -> None:
        task.worker = f"our {task.worker}"[:20]


def test_a_class_of_ones_own(database: Database) -> None:
    """It is given what is known, and stores what it has columns for."""
    backend = OwnBackend(app=app_on(database.url), url=database.url)
    backend.store_result("t", 1, states.SUCCESS, request=request())
    found = backend.recorded("t")

    assert (backend.get_result("t"), found["worker"], "name" in found) == (1, "our celery@shop-1", False)
    close(backend)


def sent(backend: DatabaseBackend, **options: Any) -> Any:
    """The headers of a message that an app with this backend has sent."""
    app = backend.app
    app.conf.task_default_queue = f"queue-{id(app)}"
    app.send_task("add", (1, 1), **options)
    with app.connection_for_read() as connection, connection.SimpleQueue(app.conf.task_default_queue) as queue:
        message = queue.get(timeout=10)
        message.ack()
        return message.headers


def test_a_message_says_when(backend: DatabaseBackend) -> None:
    """In UTC, by the id of its task."""
    before = utc_now()
    time, _, of = sent(backend, task_id="t")["celery_sql_results_sent"].partition(" ")

    assert (of, before <= datetime.fromisoformat(time) <= utc_now()) == ("t", True)


def test_a_message_of_another_task_s_headers(backend: DatabaseBackend) -> None:
    """Nobody but the task itself was sent then."""
    kept = {"celery_sql_results_sent": "2026-07-21T12:00:00 t"}
    same, other = sent(backend, task_id="t", headers=kept), sent(backend, task_id="u", headers=kept)

    assert same["celery_sql_results_sent"] == "2026-07-21T12:00:00 t"
    assert other["celery_sql_results_sent"].endswith(" u")


def test_an_app_with_another_backend(backend: DatabaseBackend) -> None:
    """In the same process and thread: its messages are its own."""
    other = Celery("other", broker="memory://", set_as_current=False)
    backend.on_task_call(None, "t")

    assert "celery_sql_results_sent" not in sent(other.backend, task_id="u")
    assert "celery_sql_results_sent" in sent(backend, task_id="v")


def test_it_can_be_turned_off(backends: Backends) -> None:
    """Then rows hold the outcome, and messages nothing of ours; unless `result_extended` asks for it."""
    off, extended = (backends(database_record_tasks=False, result_extended=extended) for extended in (False, True))
    for backend, task_id in ((off, "t"), (extended, "u")):
        backend.store_result(task_id, 1, states.SUCCESS, request=request(task_id))

    assert (told(off), told(extended, "u")) == (dict.fromkeys(KNOWN), KNOWN)
    assert ["celery_sql_results_sent" in sent(backend, task_id="v") for backend in (off, extended)] == [False, True]
