"""A task's SUCCESS in the transaction that holds the task's own rows, so that both are there, or none.

``handed`` is what tasks hand over: a session or a connection of theirs. ``completion`` writes there, tells a second
copy of the task that it must leave nothing behind, and learns afterwards what has become of the transaction.
"""

from __future__ import annotations

from typing import Any, TypeVar

from celery import current_task

from celery_sql_results.errors import CannotComplete

from .completion import Completion
from .handed import handed_over

__all__ = ["Completion", "complete"]

T = TypeVar("T")


def complete(connection_or_session: Any, value: T) -> T:
    """Store the SUCCESS of the task that runs, with ``value`` as its result, in a transaction of the task's own.

    ::

        @app.task(acks_late=True, reject_on_worker_lost=True)
        def pay(order):
            with Session.begin() as session:
                session.add(Payment(order))
                return complete(session, "paid")

    It neither commits nor rolls back. Commit before the task returns. A task that runs eagerly, or is called as a
    function, has no result: then nothing is stored.

    Args:
        connection_or_session: of SQLAlchemy, Django or a driver, in the database of the results.
        value: what the task returns.

    Returns:
        ``value``

    Raises:
        AlreadyCompleted: another copy of this task has; do not catch it, it rolls back what this one has written.
        CannotComplete: no task runs, its results are kept elsewhere or not at all, or each statement is committed.
        kombu.exceptions.EncodeError: the serializer cannot write the value.
        whatever the database, or its driver, raises.
    """
    if not current_task:
        raise CannotComplete("complete() was called where no task runs: call it in the task's own thread, not async")
    if not (current_task.request.called_directly or current_task.request.is_eager):
        completion = _completion_of(current_task)
        completion.complete(handed_over(connection_or_session, completion.dialect), value, current_task)
    return value


def _completion_of(task: Any) -> Completion:
    ignores = task.request.ignore_result
    if task.ignore_result if ignores is None else ignores:
        raise CannotComplete(
            f"{task.name} ignores its result, so a second copy could not be told: set ignore_result = False"
        )
    completion = getattr(task.backend, "completion", None)
    if not isinstance(completion, Completion):
        raise CannotComplete(
            f"{task.name} keeps its results in {type(task.backend).__name__}: complete() needs a result_backend that "
            "begins with sql+"
        )
    return completion
