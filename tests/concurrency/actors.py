"""What the processes of these tests do. They are forked, so what costs time is loaded here, once for all."""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import alembic.operations
import alembic.script  # noqa: F401
import psycopg  # noqa: F401
import pymysql  # noqa: F401
import sqlalchemy as sa
import sqlalchemy.dialects.mysql.pymysql
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite.pysqlite
from celery import Celery, states

import servers  # noqa: F401  makes the portable dialect known
from celery_sql_results import DatabaseBackend
from celery_sql_results.models import Models, TableNames, models_for
from celery_sql_results.schema import found, migrate, prepare

from .nursery import PATIENCE

app = Celery("concurrency", broker="memory://", set_as_current=False)
app.conf.get("timezone")  # the configuration is read once, before the fork
models_for(TableNames()).classes  # noqa: B018  and the tables are mapped once

#: How often each state is stored. SUCCESS is rare: it ends what can happen to an id.
WEIGHTS = {states.STARTED: 35, states.RETRY: 25, states.FAILURE: 25, states.REVOKED: 13, states.SUCCESS: 2}

#: One write, or one row as somebody saw it: task id, state, result.
Seen = tuple[str, str, Any]


def backend_on(url: str, of: Celery = app) -> DatabaseBackend:
    """A backend as an app of its own makes it."""
    return DatabaseBackend(app=of, url=url, engine_options=quick(url))


def quick(url: str) -> dict[str, Any]:
    """Options for MariaDB's driver, which else reads all certificates of the machine for each connection."""
    return {"connect_args": {"ssl_disabled": True}} if "pymysql" in url else {}


def set_up_and_store(url: str, task_id: str) -> None:
    """Make a backend, and so the tables, and store one result."""
    backend_on(url).store_result(task_id, task_id, states.SUCCESS)


def set_up_app_and_store(url: str, task: str, group: str, task_id: str) -> None:
    """The same for an app whose tables have names of their own."""
    named = Celery("named", broker="memory://", set_as_current=False)
    named.conf.database_table_names = {"task": task, "group": group}
    backend_on(url, named).store_result(task_id, task_id, states.SUCCESS)


# -- releases ----------------------------------------------------------------------------------------------------

#: A revision to come: it adds a column to the tasks.
NEXT = """
import sqlalchemy as sa
revision, down_revision = "0006", "0005"
def upgrade(op, models):
    columns = sa.inspect(op.get_bind()).get_columns(models.task.name)
    if "later" not in {column["name"] for column in columns}:
        op.execute(f"ALTER TABLE {models.task.name} ADD COLUMN later INTEGER")
"""


def set_up_as_newer_and_store(url: str, task_id: str) -> None:
    """Be a release that has one revision more."""
    scripts = scripts_of("0001", "0002", "0003", "0004", "0005", "0006")
    (scripts / "versions" / "0006_later.py").write_text(NEXT)
    set_up_and_store(url, task_id)


def set_up_as_older_and_store(url: str, task_id: str) -> None:
    """Be a release that has three revisions less, and knows the tables neither of chords nor of workers."""
    versions = scripts_of("0001", "0002") / "versions"
    for newer in ("0003_chords.py", "0004_members.py", "0005_workers.py"):
        (versions / newer).unlink()
    everything = Models.optional_for
    Models.optional_for = lambda self, impl: everything(self, impl)[:-2]  # type: ignore[method-assign]
    set_up_and_store(url, task_id)


def scripts_of(*revisions: str) -> Path:
    """Make this process a release with these revisions, and return the folder where it finds them."""
    scripts = Path(tempfile.mkdtemp()) / "migrations"
    shutil.copytree(migrate.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    migrate.SCRIPTS, found.REVISIONS = scripts, revisions  # type: ignore[assignment]
    found.HEAD = migrate.HEAD = prepare.HEAD = revisions[-1]
    return scripts


# -- overlapping writes ------------------------------------------------------------------------------------------


def store_at_random(url: str, writer: int, stores: int, ids: int) -> list[Seen]:
    """Store random states under random ids, then say so in a row of its own; return what was stored."""
    logging.getLogger("celery_sql_results.writing.retry").setLevel(logging.DEBUG)
    backend, chance = backend_on(url), random.Random(writer)
    written = [written_by(backend, chance, writer, number, ids) for number in range(stores)]
    backend.store_result(done(writer), None, states.SUCCESS)
    return written


def written_by(backend: DatabaseBackend, chance: random.Random, writer: int, number: int, ids: int) -> Seen:
    """Make one write, of a value that no other write has."""
    (state,) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
    task_id, value = f"task-{chance.randrange(ids)}", f"{writer}-{number}"
    backend.store_result(task_id, ValueError(value) if state in states.EXCEPTION_STATES else value, state)
    return task_id, state, value


def done(writer: int) -> str:
    """The id under which a writer says that it is done."""
    return f"done-{writer}"


def observe(url: str, writers: int) -> dict[str, int]:
    """Look again and again until all writers are done, and count the wrong turns that a row has taken."""
    engine = sa.create_engine(url)
    wrong: Counter[str] = Counter()
    before: dict[str, tuple[str, bytes]] = {}
    deadline = time.monotonic() + PATIENCE
    while not all(done(writer) in before for writer in range(writers)):
        assert time.monotonic() < deadline, "the writers did not end"
        now = rows_on(engine)
        wrong.update(turn for task_id in before if (turn := wrong_turn(before[task_id], now.get(task_id))))
        wrong["looks"] += 1
        before = now
    engine.dispose()
    return dict(wrong)


def rows_on(engine: sa.Engine) -> dict[str, tuple[str, bytes]]:
    """State and stored result of all tasks."""
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT task_id, status, result FROM celery_taskmeta")).all()
    return {task_id: (status, bytes(result)) for task_id, status, result in rows}


def wrong_turn(before: tuple[str, bytes], now: tuple[str, bytes] | None) -> str:
    """What is wrong about a row that was in one way and now is in another; nothing if it may be so."""
    if now is None:
        return "gone"
    if before[0] == states.SUCCESS and now != before:
        return f"SUCCESS became {now[0]}"
    if before[0] in states.READY_STATES and now[0] not in states.READY_STATES:
        return f"{before[0]} became {now[0]}"
    return ""
