"""A backend that inherits: its own classes, with columns more, which it fills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from sqlalchemy.orm import DeclarativeBase

from celery_sql_results import DatabaseBackend
from faults.load import until
from servers import Database
from servers.pool import on
from support import app_on, close


class Base(DeclarativeBase):
    """Of the classes of an application."""


class OwnTask(Base):
    """Its results: Celery's columns, and one more."""

    __tablename__ = "own_results"

    id = sa.Column(sa.Integer, sa.Sequence("task_id_sequence"), primary_key=True, autoincrement=True)
    task_id = sa.Column(sa.String(155), unique=True)
    status = sa.Column(sa.String(50))
    result = sa.Column(sa.LargeBinary)
    date_done = sa.Column(sa.DateTime)
    traceback = sa.Column(sa.Text)
    children = sa.Column(sa.LargeBinary)
    content_type = sa.Column(sa.String(155))
    summary = sa.Column(sa.String(20))

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id


class OwnTaskSet(Base):
    """Its groups, in a table with a name of its own."""

    __tablename__ = "own_groups"

    id = sa.Column(sa.Integer, sa.Sequence("taskset_id_sequence"), primary_key=True, autoincrement=True)
    taskset_id = sa.Column(sa.String(155), unique=True)
    result = sa.Column(sa.LargeBinary)
    date_done = sa.Column(sa.DateTime)


class OwnBackend(DatabaseBackend):
    """Keeps a summary of each result."""

    task_cls = OwnTask

    def _update_result(
        self, task: Any, result: Any, state: str, traceback: str | None = None, request: Any = None
    ) -> None:
        super()._update_result(task, result, state, traceback, request)
        task.summary = f"{state}: {result}"[:20]


@pytest.fixture
def backend(database: Database) -> Any:
    """On the classes of the application, whose table the backend makes."""
    made = OwnBackend(app=app_on(database.url), url=database.url)
    yield made
    close(made)


def test_a_column_more(backend: OwnBackend, database: Database) -> None:
    """It is filled with each state, and the rest is as ever."""
    backend.store_result("t", None, states.STARTED)
    backend.store_result("t", [1, 2], states.SUCCESS)
    backend.store_result("u", ValueError("no"), states.FAILURE, traceback="line 1")

    found = database.execute("SELECT task_id, status, summary FROM own_results ORDER BY id")
    assert found[0] == ("t", states.SUCCESS, "SUCCESS: [1, 2]")
    assert found[1][:2] == ("u", states.FAILURE)
    assert (backend.get_result("t"), repr(backend.get_result("u"))) == ([1, 2], "ValueError('no')")
    assert backend.task_cls is OwnTask


def test_groups_in_a_table_of_ones_own(database: Database) -> None:
    """Only theirs: tasks stay where they are by default."""

    class OwnGroups(DatabaseBackend):
        taskset_cls = OwnTaskSet

    app = app_on(database.url)
    backend = OwnGroups(app=app, url=database.url)
    backend.store_result("t", 1, states.SUCCESS)
    app.GroupResult("g", [app.AsyncResult("t")]).save(backend=backend)

    assert database.execute("SELECT taskset_id FROM own_groups") == [("g",)]
    assert database.execute("SELECT task_id FROM celery_taskmeta") == [("t",)]
    assert [member.id for member in app.GroupResult.restore("g", backend=backend)] == ["t"]
    close(backend)


def test_what_is_refused_leaves_the_outcome(backend: OwnBackend, database: Database) -> None:
    """Also where the column of one's own is what the database refuses: only what informs is left out."""
    database.execute("UPDATE own_results SET summary = ''")
    if database.kind == "sqlite":
        pytest.skip("SQLite takes a text of any length")
    backend.task_cls = OwnTask

    class Long(OwnBackend):
        def _update_result(self, task: Any, result: Any, state: str, *args: Any, **kwargs: Any) -> None:
            task.summary = "x" * 100

    made = Long(app=backend.app, url=database.url)
    made.store_result("t", [1, 2], states.SUCCESS)

    assert made.get_result("t") == [1, 2]
    close(made)


class Filled(Base):
    """Results, and groups, with a column that SQLAlchemy fills."""

    __abstract__ = True

    id = sa.Column(sa.Integer, primary_key=True, autoincrement=True)
    result = sa.Column(sa.LargeBinary)
    date_done = sa.Column(sa.DateTime)
    tenant = sa.Column(sa.String(20), default=lambda: "shop")


class FilledTask(Filled):
    """Of a task."""

    __tablename__ = "filled_results"

    task_id = sa.Column(sa.String(155), unique=True)
    status = sa.Column(sa.String(50))
    traceback = sa.Column(sa.Text)

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id


class FilledTaskSet(Filled):
    """Of a group."""

    __tablename__ = "filled_groups"

    taskset_id = sa.Column(sa.String(155), unique=True)


class FilledBackend(DatabaseBackend):
    """Stores in them."""

    task_cls = FilledTask
    taskset_cls = FilledTaskSet


def test_a_column_that_sqlalchemy_fills(database: Database) -> None:
    """Whichever way a statement takes."""
    app = app_on(database.url)
    backend = FilledBackend(app=app, url=database.url)
    for task_id in ("t", "u"):
        backend.store_result(task_id, 1, states.SUCCESS)
    app.GroupResult("g", [app.AsyncResult("t")]).save(backend=backend)

    stored = database.execute("SELECT task_id, tenant FROM filled_results ORDER BY task_id")
    assert stored == [("t", "shop"), ("u", "shop")]
    assert database.execute("SELECT taskset_id, tenant FROM filled_groups") == [("g", "shop")]
    close(backend)


@on("postgresql", "mariadb")
def test_kept_in_the_spool(database: Database, tmp_path: Path) -> None:
    """What the backend knows of a row is kept; a column of one's own is not, since nobody knows its type."""
    settings = {"database_spool_dir": str(tmp_path), "result_backend_max_retries": 0}
    backend = OwnBackend(app=app_on(database.url, **settings), url=database.url)
    backend.store_result("before", 0, states.SUCCESS)
    database.server.shutdown()
    backend.store_result("t", [1, 2], states.SUCCESS)
    database.server.restart()
    until(lambda: not backend.replay(), "the spool is empty")  # else a thread of the backend's is at it

    assert database.execute("SELECT status, summary FROM own_results WHERE task_id = 't'") == [("SUCCESS", None)]
    assert backend.get_result("t") == [1, 2]
    close(backend)
