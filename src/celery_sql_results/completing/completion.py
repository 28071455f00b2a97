"""The SUCCESS of a task in a transaction of its own: written, told to a second copy, confirmed when it has ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import sqlalchemy as sa
from celery import signature, states
from celery.exceptions import Reject
from celery.signals import task_postrun

from celery_sql_results.boundaries import caught
from celery_sql_results.chords import mark, part_for
from celery_sql_results.dialects import impl_for
from celery_sql_results.errors import AlreadyCompleted, CannotComplete, NotCommitted
from celery_sql_results.foreign import escaping, shown
from celery_sql_results.ids import stored_id
from celery_sql_results.rows import Database, Row, Rows
from celery_sql_results.writing import Retries

from .handed import Handed

__all__ = ["Completion"]

logger = escaping(logging.getLogger(__name__))

#: The attribute of a request that holds where its task was completed.
_WRITTEN = "_celery_sql_results_written"


class _Written(NamedTuple):
    """Where the SUCCESS of a task was written, and under which id."""

    handed: Handed
    task_id: str


class Completion:
    """Completes tasks in transactions of their own.

    Args:
        database: where results are stored.
        retries: repeats what passes.
        row_of: the columns of a value for a task and its request.
        meta_of: what Celery calls the meta of a row.
        nothing_sent: the payload of no children.
    """

    def __init__(
        self,
        database: Database,
        retries: Retries,
        row_of: Callable[[str, Any, Any], Row],
        meta_of: Callable[[Row], Mapping[str, Any]],
        nothing_sent: Callable[[], bytes],
    ) -> None:
        self._database = database
        self._retries = retries
        self._row_of = row_of
        self._meta_of = meta_of
        self._nothing_sent = nothing_sent
        #: What tells our database from others, once it was asked.
        self._ours: Any = None

    def dialect(self) -> sa.Dialect:
        """That of the database, which was connected to."""
        self._rows()
        return self._database.engine.dialect

    def complete(self, handed: Handed, value: Any, task: Any) -> None:
        """Write the SUCCESS of a task that runs.

        Raises:
            AlreadyCompleted: another copy of it has.
            CannotComplete: not on this connection.
        """
        request = task.request
        task_id = stored_id("task", request.id)
        before: _Written | None = getattr(request, _WRITTEN, None)
        if before is not None and self._is_open(before.handed):
            raise CannotComplete(f"complete() was called twice for task {task_id} in one transaction")
        row, rows = self._row_of(task_id, value, request), self._rows()
        part = part_for(request, row) if rows.chords else None
        if _has_next(request):
            row = {**row, "children": self._nothing_sent()}  # as_done() tells that from none
        self._check(handed, rows)
        with caught() as failed:  # any driver may have raised it
            if rows.tasks.put_once(handed, row, part):
                setattr(request, _WRITTEN, _Written(handed, task_id))
                return
        self._leave(task, rows, failed.error)

    def is_settled(self, request: Any, row: Row) -> bool:
        """Whether nothing is left to be stored of what Celery wants stored: a state of a task that was completed.

        Raises:
            NotCommitted: the task has returned, but its SUCCESS is not there.
        """
        written: _Written | None = getattr(request, _WRITTEN, None)
        if written is None or written.task_id != row["task_id"]:
            return False
        is_open = self._is_open(written.handed)
        if row["status"] not in states.READY_STATES:
            return is_open  # it would wait for the task's own lock, and SUCCESS is final
        if is_open:  # the next write would wait for it, in the thread that is to end it
            written.handed.roll_back()
        if row["status"] != states.SUCCESS:
            return False
        return self._is_confirmed(request, row, is_open)

    def as_done(self, meta: Any) -> Any:
        """A meta for Celery, which asks whether a task whose process was lost has succeeded, and sent what comes next.

        Elsewhere it has sent that before its SUCCESS is there. Here it may not have, and is to be delivered again.
        """
        is_due = isinstance(meta, dict) and meta.get("status") == states.SUCCESS and meta.get("children") == []
        return {**meta, "status": states.STARTED} if is_due else meta

    def take_over(self, task: Any) -> None:
        """Do what the first copy may not have done, in a second one whose transaction has ended."""
        request = task.request
        if _has_next(request):
            row = self._row_of(stored_id("task", request.id), None, request)
            self._rows().tasks.add_children(row["task_id"], row["children"])
        if request.chord:
            mark(request, True)
            task.backend.on_chord_part_return(request, states.SUCCESS, None)

    # -- the steps -----------------------------------------------------------------------------------------------

    def _rows(self) -> Rows:
        return self._retries.read("preparing the tables", lambda: self._database.rows)

    def _check(self, handed: Handed, rows: Rows) -> None:
        """Where a statement is run first, SQLAlchemy begins a transaction."""
        impl, engine = self._database.impl, self._database.engine
        name = engine.dialect.identifier_preparer.format_table(self._database.models.task)
        is_ours = handed.kind is None or isinstance(impl, type(impl_for(handed.kind)))
        if is_ours:
            theirs = rows.tasks.identity(handed, name)
            is_ours = theirs == self._ours is not None or self._is_ours(handed, rows, name, theirs)
        if not is_ours:
            raise CannotComplete(
                f"complete() was given a connection to another database than that of the results, "
                f"{self._database.name}, or one that finds no {name} there: the task's own rows and its result must "
                "be in one database"
            )
        if impl.transactions.commits_each(handed.driver_connection):
            raise CannotComplete(
                "complete() was given a connection in autocommit, so that nothing would be stored together: begin a "
                "transaction first"
            )

    def _is_ours(self, handed: Handed, rows: Rows, name: str, theirs: Any) -> bool:
        """Ask our side as well, also where it was asked before: the server may be another since."""

        def ask(shared: bool) -> Any:
            with self._database.impl.connect(self._database.engine) as connection:
                return rows.tasks.identity(connection, name, shared)

        self._ours = self._retries.read("telling databases apart", lambda: ask(False))
        if theirs is None or theirs == self._ours:
            return theirs is not None
        shared = rows.tasks.identity(handed, name, True)
        return bool(shared == self._retries.read("telling databases apart", lambda: ask(True)))

    def _leave(self, task: Any, rows: Rows, error: BaseException | None) -> NoReturn:
        """Nothing was stored: because another copy has done so, as what is committed tells, or for an error."""
        found: Row | None = None
        task_id = stored_id("task", task.request.id)
        with caught():  # then nobody knows; the first error is what is told
            found = rows.tasks.fetch(task_id)
        if found is not None and found["status"] == states.SUCCESS:
            _send_on(task, self._meta_of(found)["result"])
            raise AlreadyCompleted(f"another copy of task {task_id} has completed it") from error
        if error is not None:
            raise error
        raise CannotComplete(f"complete() was called twice for task {task_id} in one transaction")

    def _is_open(self, handed: Handed) -> bool:
        if handed.is_over is not None:
            return not handed.is_over
        with caught():  # it may be closed, and then it has no open transaction
            return self._database.impl.transactions.is_open(handed.driver_connection)
        return False

    def _is_confirmed(self, request: Any, row: Row, was_open: bool) -> bool:
        """What Celery's own storing would do: the row is there, but who waits for it was not woken."""
        task_id, tasks = row["task_id"], self._rows().tasks
        with caught() as failed:
            state = tasks.fetch_states([task_id]).get(task_id)
            if state == states.SUCCESS:
                tasks.wake(row)
                if row["children"] or _has_next(request):
                    tasks.add_children(task_id, row["children"])
        if failed.error:  # the database is away: it is stored as ever, tried again or kept, and SUCCESS stays
            logger.debug("could not look for task %s", task_id, exc_info=failed.error)
            return False
        if state != states.SUCCESS:
            became = "left open, and was rolled back" if was_open else "rolled back"
            raise NotCommitted(
                f"task {task_id} has called complete(), but its transaction was {became}: commit it before the task "
                "returns"
            )
        mark(request, True)
        return True


def _has_next(request: Any) -> bool:
    return bool(request.chain or request.callbacks)


def _send_on(task: Any, value: Any) -> None:
    """Send what comes after a task: the first copy may have ended before it could. Chains go on under the same ids.

    Raises:
        Reject: the broker is away; the copy is to come again.
    """
    request, app = task.request, task.app
    relatives = {"parent_id": request.id, "root_id": request.root_id or request.id}
    with caught() as failed:
        for callback in request.callbacks or ():
            signature(callback, app=app).apply_async((value,), **relatives)
        if request.chain:
            signature(request.chain[-1], app=app).apply_async((value,), chain=request.chain[:-1], **relatives)
    if failed.error:
        raise Reject(shown(failed.error), requeue=True) from failed.error


def _take_over(task: Any = None, retval: Any = None, **_: Any) -> None:
    if isinstance(retval, AlreadyCompleted):
        task.backend.completion.take_over(task)


task_postrun.connect(_take_over)
