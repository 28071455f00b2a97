"""What is done: each step in turn, each outcome checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from reprlib import repr
from typing import Any, TypeVar

from celery import chord, group
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import GroupResult
from sqlalchemy import Engine, create_engine, event, text

from demo import screen, tasks
from demo.worker import Problem

T = TypeVar("T")

#: Seconds that a result may take.
PATIENCE = 30.0
#: Tasks in the group, and parts of the chord.
GROUP, CHORD = 100, 10
#: What the group results in.
SUMS = [n + n for n in range(GROUP)]

ROWS = """\
SELECT substr(task_id, 1, 8) AS task, name, status, retries, worker, date_done, result
FROM celery_taskmeta
ORDER BY date_done"""


def run_tasks() -> str:
    """Run single tasks, a group and a chord on a worker that is ready; return the id of the one that has failed.

    Raises:
        Problem: something did not come out as it should.
    """
    succeed()
    failed = fail()
    retry()
    restore_group(run_group())
    run_chord()
    return failed


def succeed() -> None:
    """The usual case."""
    with screen.step("add(2, 3)") as step:
        result = tasks.add.delay(2, 3)
        step.outcome = f"{_expect(5, _get(result))}"


def fail() -> str:
    """An exception comes back as one. Return the id of the task."""
    with screen.step("divide(1, 0)") as step:
        result = tasks.divide.delay(1, 0)
        _expect(ZeroDivisionError, type(_get(result, propagate=False)))
        step.outcome = f"{result.traceback.splitlines()[-1]}, with traceback"
        return str(result.id)


def retry() -> None:
    """What is retried is found when it is done, and its row says how often it was."""
    with screen.step("connect(failures=2)") as step:
        result = tasks.connect.delay(failures=2)
        step.outcome = f"{_expect('connected', _get(result))} after {_expect(2, result.retries)} retries"


def run_group() -> str:
    """Results are known as they come; the id is enough to find them again."""
    with screen.step(f"group of {GROUP}") as step:
        result = group(tasks.add.s(n, n) for n in range(GROUP)).delay()
        done = count(1)
        values = _get(result, on_message=lambda _: step.progress(f"{next(done)} done"))
        step.outcome = f"{len(_expect(SUMS, values))} results"
        return str(result.save().id)


def restore_group(group_id: str) -> None:
    """However many results there are, it takes one query for the group and one for all of them."""
    with screen.step("the same group, read again") as step, _counted_queries() as queries:
        values = _get(GroupResult.restore(group_id, app=tasks.app))
        step.outcome = f"{len(_expect(SUMS, values))} results with {len(queries)} queries"


def run_chord() -> None:
    """The results of the parts are the argument of the body."""
    with screen.step(f"chord of {CHORD} and its body") as step:
        result = chord((tasks.add.s(n, n) for n in range(CHORD)), tasks.total.s()).delay()
        step.outcome = f"{_expect(2 * sum(range(CHORD)), _get(result))}"


def read_rows(url: str) -> Sequence[Any]:
    """What is stored, read with plain SQL and without Celery."""
    with screen.step("read the table") as step, create_engine(url).connect() as connection:
        rows = connection.execute(text(ROWS)).all()
        step.outcome = f"{_expect(3 + GROUP + CHORD + 1, len(rows))} rows, with SQL that works anywhere"
    return rows


def _get(result: Any, **how: Any) -> Any:
    try:
        return result.get(timeout=PATIENCE, **how)
    except CeleryTimeoutError as error:
        raise Problem(f"No result came within {PATIENCE:.0f} s.") from error


def _expect(expected: T, found: T) -> T:
    if found != expected:
        raise Problem(f"{repr(found)} came back, but {repr(expected)} was expected.")
    return found


@contextmanager
def _counted_queries() -> Iterator[list[str]]:
    """Collect the statements that this process sends to any database."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)
