"""Which results there are: pages of them, newest first, and all that is known of one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from celery import states

from celery_sql_results.models import not_succeeded
from celery_sql_results.rows.tasks import Row

from .asking import Asked, Unanswerable

__all__ = ["LISTED", "Cursor", "Filter", "Page", "Results"]

#: The columns of a list. Of what failed, also ``failure``, the end of its traceback.
LISTED = (
    *("id", "task_id", "status", "name", "worker", "queue", "retries"),
    *("date_queued", "date_started", "date_done", "parent_id", "root_id", "group_id"),
)
#: What whoever changes results must know of each.
MEANT = ("id", "task_id", "status", "name", "date_done", "group_id")
#: Characters of a traceback that a list reads: more than the last line has, as a rule.
TAIL = 600
#: Bytes of a payload that say which exception it is.
HEAD = 200
#: The payloads of a task.
PAYLOADS = ("result", "args", "kwargs", "stamps", "children", "traceback")


class Cursor(NamedTuple):
    """Where a page has ended: the time of its last row, and its id."""

    when: datetime
    id: int


@dataclass(frozen=True)
class Filter:
    """Which results are meant: those that meet all that is said.

    Attributes:
        states: one of these.
        name, worker, queue: patterns, in which ``*`` stands for any text and ``?`` for any character.
        since, until: done, or if it is not done begun, or else sent, at or after one time and before the other; UTC.
            What has none of these times meets neither.
        root, group, parent: ids.
        longer: seconds that it ran at least.
        exception: a pattern for the class of the exception, without its module; of a FAILURE, unless states are named.
        ids: one of these, as many as a statement takes.
    """

    states: Sequence[str] = ()
    name: str | None = None
    worker: str | None = None
    queue: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    root: str | None = None
    group: str | None = None
    parent: str | None = None
    longer: float | None = None
    exception: str | None = None
    ids: Sequence[str] | None = None


class Page(NamedTuple):
    """Some rows, and where to go on; ``None`` if these were the last."""

    rows: list[Row]
    next: Cursor | None


class Results:
    """The task rows, as people ask for them.

    Args:
        asked: the database.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._task = asked.models.task

    def page(self, which: Filter, limit: int, after: Cursor | None = None) -> Page:
        """So many results, the one that was done, begun or sent last first; what has none of these times comes last.

        Each row has ``when``, the time by which it is in its place.

        Raises:
            TooLong: the database did not answer in time.
        """
        return self._paged(which, limit, after, self.listed)

    def meant(self, which: Filter, limit: int, after: Cursor | None = None) -> Page:
        """The same, with no more of each than whoever changes it must know."""
        return self._paged(which, limit, after, tuple(map(self._column, MEANT)))

    def expired(self, which: Filter) -> sa.ColumnElement[bool]:
        """What a filter says of results that are done."""
        return sa.and_(sa.true(), *self.conditions(which, self._task.c.date_done))

    def _paged(self, which: Filter, limit: int, after: Cursor | None, columns: Sequence[Any]) -> Page:
        if which.parent is not None and which.root is None:
            which = replace(which, root=self._root_of(which.parent))
        values = {} if which.ids is None else {"ids_": list(which.ids)}
        found = self._asked.all(self._page(which, limit + 1, after, columns), values=values)
        rows = found[:limit]
        return Page(rows, Cursor(rows[-1]["when"], rows[-1]["id"]) if len(found) > limit else None)

    def one(self, task_id: str, most: int | None = None) -> Row | None:
        """All that is known of one result, its payloads cut to some ``most`` bytes; ``size_of_…`` is what they have."""
        task = self._task
        columns: list[sa.ColumnElement[Any]] = [self._column(name) for name in (*LISTED, "content_type")]
        for name in PAYLOADS:
            column = self._column(name)
            size = self._asked.impl.size_of(column) if self._asked.has(task, name) else sa.null()
            cut = column if most is None else self._cut(column, most)
            columns += [cut.label(name), sa.cast(size, sa.BigInteger).label(f"size_of_{name}")]
        found = self._asked.all(sa.select(*columns).where(task.c.task_id == task_id))
        return found[0] if found else None

    def _cut(self, column: sa.ColumnElement[Any], most: int) -> sa.ColumnElement[Any]:
        """A traceback tells the most at its end."""
        read = self._asked.impl.reads
        return read.tail(column, most) if column.name == "traceback" else read.head(column, most)

    def newest_id(self) -> int:
        """The greatest id of a row: what is written later has a greater one. 0 if there are no rows."""
        return self._asked.all(sa.select(sa.func.max(self._task.c.id).label("id")))[0]["id"] or 0

    def ids_like(self, prefix: str, limit: int) -> list[str]:
        """The ids that begin with a text, up to so many. Between two bounds, as far as the order of texts goes."""
        id_ = self._task.c.task_id
        like = self._asked.impl.reads.like(id_, f"{prefix.replace('*', '?')}*")
        found = sa.select(id_).where(like, id_ >= prefix, id_ < f"{prefix}zzzz").order_by(id_).limit(limit)
        return [row["task_id"] for row in self._asked.all(found)]

    def _root_of(self, task_id: str) -> str | None:
        """What a task has sent is of its workflow, which an index may find."""
        root = self._column("root_id")
        found = self._asked.all(sa.select(root).where(self._task.c.task_id == task_id))
        return found[0]["root_id"] if found else None

    # -- statements ----------------------------------------------------------------------------------------------

    def _page(self, which: Filter, limit: int, after: Cursor | None, columns: Sequence[Any]) -> sa.Select[Any]:
        """What is done lies in the index of ``date_done``, or in that of what has not succeeded. Each state has its own
        part of the latter, so each is asked for by itself. Of what is not done, there is little as a rule.
        """
        task, never = self._task.c, self._asked.impl.reads.never
        begun = sa.func.coalesce(self._column("date_started"), self._column("date_queued"), never)
        open_: sa.ColumnElement[bool] = task.date_done.is_(None)
        if which.until is not None:  # what has no time is not before a time
            open_ = sa.and_(open_, begun > never)
        arms: list[sa.Subquery] = []
        for one in self._one_by_one(which):
            for when, only in ((task.date_done, task.date_done.is_not(None)), (begun, open_)):
                arms.append(self._arm(one, (*columns, when.label("when")), only, limit, after))
        all_ = sa.union_all(*map(sa.select, arms)).subquery("all_")
        return sa.select(all_).order_by(all_.c.when.desc(), all_.c.id.desc()).limit(limit)

    def _one_by_one(self, which: Filter) -> list[Filter]:
        wanted = tuple(dict.fromkeys(which.states)) or ((states.FAILURE,) if which.exception is not None else ())
        if states.SUCCESS in wanted:
            return [which]
        return [replace(which, states=(state,)) for state in wanted] or [which]

    def _arm(
        self, which: Filter, columns: Sequence[Any], only: sa.ColumnElement[bool], limit: int, after: Cursor | None
    ) -> sa.Subquery:
        id_, when = self._task.c.id, columns[-1].element
        found = sa.select(*columns).where(only, *self.conditions(which, when))
        if after is not None:
            found = found.where(when <= after.when, sa.or_(when < after.when, id_ < after.id))
        return found.order_by(when.desc(), id_.desc()).limit(limit).subquery()

    def conditions(self, which: Filter, when: Any) -> list[sa.ColumnElement[bool]]:
        """What a filter says of a row, whose time ``when`` is."""
        like = self._asked.impl.reads.like
        globs = {"name": which.name, "worker": which.worker, "queue": which.queue}
        ids = {"group_id": which.group, "parent_id": which.parent}
        found = [like(self._column(name), pattern) for name, pattern in globs.items() if pattern is not None]
        found += [self._column(name) == id_ for name, id_ in ids.items() if id_ is not None]
        if which.root is not None:
            found.append(self._in_workflow(which.root))
        if which.states:
            found.append(self.in_states(which.states))
        if which.since is not None:
            found.append(when >= which.since)
        if which.until is not None:
            found.append(when < which.until)
        if which.longer is not None:
            found.append(self._run_time >= which.longer)
        if which.exception is not None:
            found.append(self._raised(which.exception))
        if which.ids is not None:
            found.append(self._asked.impl.one_of(self._task.c.task_id))
        return found

    @property
    def listed(self) -> list[sa.ColumnElement[Any]]:
        """What a list shows of a row."""
        columns = [self._column(name) for name in LISTED]
        return [*columns, self._failure.label("failure"), self._kind.label("kind")]

    def in_states(self, wanted: Collection[str]) -> sa.ColumnElement[bool]:
        """A state is one of these. They stand in the text, so that the index of what has not succeeded can serve."""
        status = self._task.c.status
        found = sa.or_(*(status == sa.literal(state, sa.String, literal_execute=True) for state in wanted))
        return found if states.SUCCESS in wanted else sa.and_(not_succeeded(self._task), found)

    def _in_workflow(self, root: str) -> sa.ColumnElement[bool]:
        """An index of workflows leaves out the task that has begun each, whose own index finds it."""
        task_id, root_id = self._task.c.task_id, self._column("root_id")
        return sa.or_(sa.and_(root_id == root, root_id != task_id), sa.and_(task_id == root, root_id == root))

    @property
    def _run_time(self) -> sa.ColumnElement[float]:
        """Seconds from when a task began until it was done."""
        if not self._asked.impl.reads.computes:
            raise Unanswerable("this database does not compute how long a task ran: none can be found by that")
        return self._asked.impl.reads.seconds(self._task.c.date_done, self._column("date_started"))

    def _raised(self, pattern: str) -> sa.ColumnElement[bool]:
        """The class is told by the last lines of the traceback. Most have nothing like it, which one look tells."""
        like, tail = self._asked.impl.reads.like, self._tail
        lines = (f"{pattern}:*", f"*\n{pattern}:*", f"*.{pattern}:*", f"*\n{pattern}", f"*.{pattern}", pattern)
        return sa.and_(like(tail, f"*{pattern}*"), sa.or_(*(like(tail, line) for line in lines)))

    @property
    def _tail(self) -> sa.ColumnElement[str]:
        return self._asked.impl.reads.tail(self._task.c.traceback, TAIL)

    @property
    def _failure(self) -> sa.ColumnElement[str]:
        """The end of the traceback of what failed."""
        return sa.case((self.in_states(sorted(states.EXCEPTION_STATES)), self._tail))

    @property
    def _kind(self) -> sa.ColumnElement[bytes]:
        """The beginning of the payload of what failed, which names the exception where it is JSON."""
        head = self._asked.impl.reads.head(self._task.c.result, HEAD)
        return sa.case((self.in_states(sorted(states.EXCEPTION_STATES)), head))

    def _column(self, name: str) -> sa.ColumnElement[Any]:
        return self._asked.column(self._task, name)
