"""What the processes of these tests do. They are forked, so what costs time is loaded here, once for all."""

from __future__ import annotations

import random
import time
from collections import Counter
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
from celery_sql_results.models import TableNames, models_for

from .nursery import PATIENCE

app = Celery("concurrency", broker="memory://", set_as_current=False)
app.conf.get("timezone")  # the configuration is read once, before the fork
models_for(TableNames()).classes  # noqa: B018  and the tables are mapped once

#: How often each state is stored. SUCCESS is rare: it ends what can happen to an id.
WEIGHTS = {states.STARTED: 35, states.RETRY: 25, states.FAILURE: 25, states.REVOKED: 13, states.SUCCESS: 2}

#: One write, or one row as somebody saw it: task id, state, result.
Seen = tuple[str, str, Any]


def backend_on(url: str) -> DatabaseBackend:
    """A backend as an app of its own makes it."""
    return DatabaseBackend(app=app, url=url, engine_options=quick(url))


def quick(url: str) -> dict[str, Any]:
    """Options for MariaDB's driver, which else reads all certificates of the machine for each connection."""
    return {"connect_args": {"ssl_disabled": True}} if "pymysql" in url else {}


def set_up_and_store(url: str, task_id: str) -> None:
    """Make a backend, and so the tables, and store one result."""
    backend_on(url).store_result(task_id, task_id, states.SUCCESS)


# -- overlapping writes ------------------------------------------------------------------------------------------


def store_at_random(url: str, writer: int, stores: int, ids: int) -> list[Seen]:
    """Store random states under random ids, then say so in a row of its own; return what was stored."""
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
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
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
