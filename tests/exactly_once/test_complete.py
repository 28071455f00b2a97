"""A task's rows and its SUCCESS are both there, or both not."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery, Task, states
from sqlalchemy.orm import Session

from celery_sql_results import AlreadyCompleted, CannotComplete, NotCommitted, complete
from exactly_once.conftest import Stages
from exactly_once.stage import Stage, write
from servers.pool import on, without

#: Seconds in which what is waited for must have happened; generous, since a loaded machine is slow.
PATIENCE = 60.0


def paid(stage: Stage) -> Any:
    """What a task does that completes itself in a session."""

    def body(task: Task) -> Any:
        with Session(stage.engine) as session, session.begin():
            write(session, task)
            return complete(session, {"paid": 1})

    return body


def test_rows_and_success_are_committed_together(stage: Stage) -> None:
    def body(task: Task) -> Any:
        with Session(stage.engine) as session:
            write(session, task)
            value = complete(session, "paid")
            during = stage.state(task.request.id), stage.effects(task.request.id)
            session.commit()
        after = stage.state(task.request.id), stage.effects(task.request.id)
        seen.append((value, during, after))
        return value

    seen: list[Any] = []
    task_id = stage.traced(body)
    assert seen == [("paid", ((states.PENDING, None), 0), ((states.SUCCESS, "paid"), 1))]
    assert (stage.state(task_id), stage.effects(task_id)) == ((states.SUCCESS, "paid"), 1)


def test_an_error_after_it_leaves_nothing_but_a_failure(stage: Stage) -> None:
    def body(task: Task) -> Any:
        with Session(stage.engine) as session, session.begin():
            write(session, task)
            complete(session, "paid")
            raise KeyError("too late")

    task_id = stage.traced(body)
    state, error = stage.state(task_id)
    assert (state, repr(error), stage.effects(task_id)) == (states.FAILURE, "KeyError('too late')", 0)


def test_a_copy_that_comes_later_leaves_nothing(stage: Stage) -> None:
    task_id = stage.traced(paid(stage))
    stage.traced(paid(stage), task_id)
    assert (stage.state(task_id), stage.effects(task_id)) == ((states.SUCCESS, {"paid": 1}), 1)


def test_a_copy_that_runs_at_the_same_time_leaves_nothing(stage: Stage) -> None:
    """The second waits for the first, in the database."""
    raised: list[str] = []
    begun, second = threading.Event(), threading.Thread(target=lambda: stage.traced(late, "twice"))

    def late(task: Task) -> Any:
        begun.set()
        with stage.engine.connect() as connection, connection.begin():
            write(connection, task) if stage.database.kind != "sqlite" else None
            try:
                complete(connection, "second")
            except BaseException as error:
                raised.append(type(error).__name__)
                raise

    def early(task: Task) -> Any:
        with stage.engine.connect() as connection, connection.begin():
            write(connection, task)
            complete(connection, "first")
            second.start()
            assert begun.wait(PATIENCE)
            second.join(0.5)  # it cannot end now
            assert (second.is_alive(), raised) == (True, [])
            connection.commit()
        return "first"

    stage.traced(early, "twice")
    second.join(PATIENCE)
    assert raised == [AlreadyCompleted.__name__]
    assert (stage.state("twice"), stage.effects("twice")) == ((states.SUCCESS, "first"), 1)


def test_a_task_that_has_failed_may_be_completed_later(stage: Stage) -> None:
    task_id = stage.traced(lambda task: 1 / 0)
    stage.traced(paid(stage), task_id)
    assert (stage.state(task_id), stage.effects(task_id)) == ((states.SUCCESS, {"paid": 1}), 1)


def test_a_transaction_that_is_rolled_back_fails_the_task(stage: Stage) -> None:
    """Its session is closed without a commit, as happens when one forgets it."""

    def body(task: Task) -> Any:
        with Session(stage.engine) as session:
            write(session, task)
            return complete(session, "paid")

    task_id = stage.traced(body)
    state, error = stage.state(task_id)
    assert (state, type(error), stage.effects(task_id)) == (states.FAILURE, NotCommitted, 0)
    assert "was rolled back: commit it" in str(error)


@without("portable", "PostgreSQL under another name")
def test_a_savepoint_that_is_rolled_back_fails_the_task(stage: Stage) -> None:
    def body(task: Task) -> Any:
        with stage.engine.begin() as connection:
            nested = connection.begin_nested()
            write(connection, task)
            complete(connection, "paid")
            nested.rollback()
        return "paid"

    task_id = stage.traced(body)
    state, error = stage.state(task_id)
    assert (state, type(error), stage.effects(task_id)) == (states.FAILURE, NotCommitted, 0)


@pytest.mark.parametrize("raises", [False, True])
def test_a_transaction_that_is_left_open_is_rolled_back(stage: Stage, raises: bool) -> None:
    """The worker does not wait for a lock that it holds itself."""
    session = Session(stage.engine)

    def body(task: Task) -> Any:
        write(session, task)
        complete(session, "paid")
        if raises:
            raise KeyError("left")
        return "paid"

    task_id = stage.traced(body)
    state, error = stage.state(task_id)
    kind = KeyError if raises else NotCommitted
    assert (state, type(error), stage.effects(task_id)) == (states.FAILURE, kind, 0)
    session.close()


def test_states_in_between_do_not_wait_for_the_own_lock(stage: Stage) -> None:
    def body(task: Task) -> Any:
        with Session(stage.engine) as session:
            write(session, task)
            complete(session, "paid")
            task.update_state(state="PROGRESS", meta={"done": 1})
            session.commit()
        return "paid"

    task_id = stage.traced(body)
    assert (stage.state(task_id), stage.effects(task_id)) == ((states.SUCCESS, "paid"), 1)


def test_twice_in_one_transaction_is_an_error(stage: Stage) -> None:
    def body(task: Task) -> Any:
        with Session(stage.engine) as session, session.begin():
            write(session, task)
            complete(session, "once")
            return complete(session, "twice")

    task_id = stage.traced(body)
    state, error = stage.state(task_id)
    assert (state, stage.effects(task_id)) == (states.FAILURE, 0)
    assert "called twice" in str(error)


def test_once_more_after_a_rollback_is_fine(stage: Stage) -> None:
    """A task may try its transaction again by itself."""

    def body(task: Task) -> Any:
        with Session(stage.engine) as session:
            for attempt in (1, 2):
                write(session, task)
                value = complete(session, attempt)
                session.rollback() if attempt == 1 else session.commit()
        return value

    task_id = stage.traced(body)
    assert (stage.state(task_id), stage.effects(task_id)) == ((states.SUCCESS, 2), 1)


def test_eager_and_called_as_a_function_store_nothing(stages: Stages) -> None:
    stage = stages(task_always_eager=True)
    assert stage.task.apply((paid(stage),)).get() == {"paid": 1}
    assert stage.task(lambda _: complete(stage.engine.connect(), 2)) == 2


def failed(stage: Stage, body: Any, **options: Any) -> str:
    """What a task that cannot be completed fails with; it has written nothing."""
    task_id = stage.traced(body, **options)
    state, error = stage.state(task_id)
    assert (state, type(error), stage.effects(task_id)) == (states.FAILURE, CannotComplete, 0)
    return str(error)


def test_outside_of_a_task(stage: Stage) -> None:
    with Session(stage.engine) as session, pytest.raises(CannotComplete, match="where no task runs"):
        complete(session, 1)


def test_a_task_that_ignores_its_result(stage: Stage) -> None:
    raised: list[str] = []

    def body(task: Task) -> None:
        with stage.engine.begin() as connection, pytest.raises(CannotComplete) as error:
            complete(connection, 1)
        raised.append(str(error.value))

    stage.traced(body, ignore_result=True)
    assert raised == ["run ignores its result, so a second copy could not be told: set ignore_result = False"]


def test_a_value_that_cannot_be_encoded(stage: Stage) -> None:
    def body(task: Task) -> Any:
        with stage.engine.begin() as connection:
            write(connection, task)
            return complete(connection, object())

    task_id = stage.traced(body)
    state, error = stage.state(task_id)
    assert (state, type(error).__name__, stage.effects(task_id)) == (states.FAILURE, "EncodeError", 0)


def test_autocommit(stage: Stage) -> None:
    def body(task: Task) -> Any:
        with stage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return complete(connection, 1)

    assert "in autocommit" in failed(stage, body)


def test_another_database(stage: Stage, tmp_path: Any) -> None:
    elsewhere = sa.create_engine(f"sqlite:///{tmp_path}/other.db")

    def body(task: Task) -> Any:
        with elsewhere.begin() as connection:
            return complete(connection, 1)

    assert "another database than that of the results" in failed(stage, body)


@on("postgresql", "mariadb", "portable")
def test_another_database_of_the_same_server(stage: Stage) -> None:
    server, url = stage.database.server, sa.make_url(stage.database.url)
    server.create_database("elsewhere")
    elsewhere = sa.create_engine(url.set(database="elsewhere"))

    def body(task: Task) -> Any:
        with elsewhere.begin() as connection:
            return complete(connection, 1)

    assert "another database than that of the results" in failed(stage, body)
    elsewhere.dispose()
    server.drop_database("elsewhere")


def test_something_else(stage: Stage) -> None:
    assert "but it needs a Session or Connection of SQLAlchemy" in failed(stage, lambda task: complete(stage.engine, 1))


@on("postgresql", "mariadb")
def test_a_second_copy_that_sees_an_old_snapshot(stage: Stage) -> None:
    """Where the database answers with an error, what is committed tells what it means."""
    old = stage.engine.execution_options(isolation_level="REPEATABLE READ")
    raised: list[Any] = []

    def late(task: Task) -> Any:
        with old.connect() as connection, connection.begin():
            assert stage.effects(task.request.id) == 0
            connection.execute(sa.text("SELECT count(*) FROM effects")).all()
            write(connection, task)
            stage.traced(paid(stage), task.request.id)
            try:
                complete(connection, "late")
            except AlreadyCompleted as error:
                raised.append(type(error))
                raise

    stage.traced(late, "t")
    assert (stage.state("t"), stage.effects("t"), raised) == ((states.SUCCESS, {"paid": 1}), 1, [AlreadyCompleted])


@on("postgresql", "mariadb")
def test_a_role_without_the_right_to_write_results(stage: Stage) -> None:
    """The database says what is missing, and the task's rows are gone with it."""
    database = stage.database
    stage.traced(lambda task: 1)  # the tables are there
    database.server.create_role("clerk", "secret", database.name, ddl=False, write=False)
    clerk = "clerk" if database.kind == "postgresql" else "clerk@'%'"
    url = database.server.url(database.name, user="clerk", password="secret")
    database.execute(f"GRANT INSERT ON effects TO {clerk}")
    restricted = sa.create_engine(url)

    def body(task: Task) -> Any:
        with restricted.begin() as connection:
            write(connection, task)
            return complete(connection, "paid")

    task_id = stage.traced(body)
    state, error = stage.state(task_id)
    restricted.dispose()
    assert (state, stage.effects(task_id)) == (states.FAILURE, 0)
    assert "denied" in str(error)
    assert "celery_taskmeta" in str(error)


def test_another_kind_of_backend(stage: Stage) -> None:
    other = Stage(Celery("other", broker="memory://", backend="cache+memory://", set_as_current=False), stage.database)
    seen: list[str] = []

    def body(task: Task) -> Any:
        with other.engine.begin() as connection, pytest.raises(CannotComplete) as error:
            complete(connection, 1)
        seen.append(str(error.value))

    other.traced(body)
    other.close()
    assert seen == ["run keeps its results in CacheBackend: complete() needs a result_backend that begins with sql+"]
