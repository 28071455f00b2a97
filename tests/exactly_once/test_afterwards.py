"""What Celery does after a task was completed: those who wait are woken, what comes next is sent, nothing is stored."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Task, states
from celery.app.trace import build_tracer
from celery.exceptions import Reject
from sqlalchemy.pool import NullPool

from celery_sql_results import complete
from exactly_once.conftest import Stages
from exactly_once.stage import Stage, write
from faults.trouble import proxied
from legacy import RELEASES, tables
from servers import Database
from servers.pool import on
from support import app_on

#: A port on which nobody listens.
NOBODY = 1


def paid(stage: Stage) -> Any:
    """What a task does that completes itself."""

    def body(task: Task) -> str:
        with stage.engine.begin() as connection:
            write(connection, task)
            return complete(connection, "paid")

    return body


def sent(stage: Stage) -> list[tuple[str, Any]]:
    """The messages that lie in the broker: the task, and what it is called with."""
    with stage.app.connection_for_read() as connection:
        channel = connection.default_channel
        queue = stage.app.conf.task_default_queue
        get = lambda: channel.basic_get(queue, no_ack=True)  # noqa: E731
        return [(message.headers["id"], message.decode()[0]) for message in iter(get, None)]


@pytest.fixture
def stage(stages: Stages) -> Stage:
    """One with a queue of its own."""
    return stages(task_default_queue=f"queue-{uuid.uuid4().hex}", result_extended=True)


@on("postgresql")
def test_who_waits_is_woken(stage: Stage) -> None:
    """His row goes with the notification."""
    stage.traced(lambda task: 1)  # the tables are there
    stage.database.execute("INSERT INTO celery_taskmeta_waiters VALUES ('awaited', 'somebody', now())")
    stage.traced(paid(stage), "awaited")
    assert stage.database.execute("SELECT count(*) FROM celery_taskmeta_waiters") == [(0,)]


def test_what_comes_next_is_sent_and_noted(stage: Stage) -> None:
    following = stage.task.s().set(task_id="next")
    stage.traced(paid(stage), "first", chain=[following])
    children = stage.backend.get_task_meta("first", cache=False)["children"]
    assert [child[0][0] for child in children] == ["next"]
    assert sent(stage) == [("next", ["paid"])]


def test_a_second_copy_sends_what_the_first_has_not(stage: Stage) -> None:
    """The first was killed right after its commit. What the first has returned goes on, not what the second has."""

    def dies(task: Task) -> Any:
        with stage.engine.begin() as connection:
            write(connection, task)
            complete(connection, "of the first")
        raise SystemExit

    following, errors = stage.task.s().set(task_id="next"), stage.task.s().set(task_id="linked")
    more: dict[str, Any] = {"chain": [following], "callbacks": [errors]}
    with pytest.raises(SystemExit):
        stage.traced(dies, "first", **more)
    assert sent(stage) == []
    stage.traced(paid(stage), "first", **more)
    assert sorted(sent(stage)) == [("linked", ["of the first"]), ("next", ["of the first"])]
    assert (stage.state("first"), stage.effects("first")) == ((states.SUCCESS, "of the first"), 1)


def test_a_second_copy_comes_again_while_the_broker_is_away(stages: Stages) -> None:
    stage = stages()
    stage.traced(paid(stage), "first")
    stage.app.conf.update(broker_url="redis://127.0.0.1:1/", task_publish_retry=False)
    request = {"id": "first", "chain": [stage.task.s()], "called_directly": False, "is_eager": False}
    caught: list[Any] = []

    def body(task: Task) -> Any:
        try:
            return paid(stage)(task)
        except Reject as reject:
            caught.append(reject.requeue)
            raise

    build_tracer(stage.task.name, stage.task, app=stage.app)("first", (body,), {}, {**request, "delivery_info": {}})
    assert (caught, stage.effects("first")) == ([True], 1)


@on("postgresql", "mariadb")
def test_the_database_goes_away_after_the_commit(database: Database, stages: Stages, tmp_path: Path) -> None:
    """What Celery stores goes to the spool, and changes nothing when it comes from there."""
    with proxied(database) as (proxy, url):
        stage = stages(url=url, database_spool_dir=str(tmp_path), result_backend_max_retries=1, database_listen=False)

        def body(task: Task) -> Any:
            value = paid(stage)(task)
            proxy.target = NOBODY
            proxy.cut()
            return value

        stage.traced(body, "t")
        assert stage.backend.spooled == 1
        proxy.target = database.server.port
        stage.backend.replay()
        assert stage.backend.spooled == 0
        assert (stage.state("t"), stage.effects("t")) == ((states.SUCCESS, "paid"), 1)


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize("release", RELEASES)
def test_old_tables(database: Database, stages: Stages, release: str) -> None:
    """Those of Celery's own backend, which nobody may alter."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    tables(release, engine)
    engine.dispose()
    stage = stages()
    for _ in range(2):
        stage.traced(paid(stage), "t")
    assert (stage.state("t"), stage.effects("t")) == ((states.SUCCESS, "paid"), 1)


def test_behind_pgbouncer(pgbouncer: Database) -> None:
    options = {"connect_args": {"prepare_threshold": None}}
    stage = Stage(app_on(pgbouncer.url, database_engine_options=options), pgbouncer)
    stage.engine.dispose()
    stage.engine = sa.create_engine(pgbouncer.url, **options)
    for _ in range(2):
        stage.traced(paid(stage), "t")
    assert (stage.state("t"), stage.effects("t")) == ((states.SUCCESS, "paid"), 1)
    stage.close()
