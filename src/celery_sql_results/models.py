"""The tables of task and group results, and the classes that map them.

One :class:`Models` is the set of tables of one backend. Two backends with the same names share it; two with different
names have nothing in common, so that they cannot touch each other's tables. The module-level :class:`Task`,
:class:`TaskExtended` and :class:`TaskSet` are those of the default names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, NamedTuple
from weakref import WeakValueDictionary

import sqlalchemy as sa
from celery import states
from sqlalchemy.orm import DeclarativeBase

from celery_sql_results._compat import memoized_property

from .dialects import DefaultImpl
from .dialects.types import TABLE_OPTIONS, Blob, Id, LongText, Timestamp, only_where, utc_now

__all__ = [
    "MappedClass",
    "Models",
    "TableNames",
    "Task",
    "TaskExtended",
    "TaskSet",
    "models_for",
    "models_with",
    "not_succeeded",
    "row_of",
    "utc_now",
]

#: Characters of an id, a name, a worker and a queue: the width of Celery's columns.
NAME_LENGTH = 155
#: Characters of a state.
STATE_LENGTH = 50

#: What tells the outcome of a task.
TASK_COLUMNS = ("task_id", "status", "result", "date_done", "traceback", "children", "content_type")
EXTENDED_COLUMNS = (
    *("name", "args", "kwargs", "worker", "retries", "queue", "stamps"),
    *("date_queued", "date_started", "parent_id", "root_id", "group_id"),
)
#: What is recorded beside the outcome, also while ``result_extended`` is off.
RECORDED_COLUMNS = tuple(name for name in EXTENDED_COLUMNS if name not in ("args", "kwargs", "stamps"))
#: What is written of a part of a chord.
PART_COLUMNS = ("group_id", "task_id", "position", "status", "result", "content_type")


#: Of a column that came with a later release: a table that lacks it is used without.
OPTIONAL: Final = {"optional": True}

#: The sequences that ids come from are Celery's, whatever the names of the tables.
TASK_SEQUENCE, GROUP_SEQUENCE = "task_id_sequence", "taskset_id_sequence"


class TableNames(NamedTuple):
    """Names and schemas of the two tables; the defaults are Celery's."""

    task: str = "celery_taskmeta"
    group: str = "celery_tasksetmeta"
    task_schema: str | None = None
    group_schema: str | None = None

    @property
    def clash(self) -> str | None:
        """The name that two of all tables, sequences and indexes would have in one schema, if there is one.

        Upper and lower case are one, as on most databases.
        """
        task, group = self.task.casefold(), self.group.casefold()
        beside = {f"{task}_{ending}" for ending in ("waiters", "chords", "parts", "workers", "version")}
        of_task = {TASK_SEQUENCE, *(f"ix_{task}_{column}" for column in ("date_done", "status", "root_id", "group_id"))}
        of_group = {GROUP_SEQUENCE, f"ix_{group}_date_done"}
        if task in of_task or (self.task_schema == self.group_schema and task in of_group):
            return self.task
        if group in of_group or (self.task_schema == self.group_schema and group in {task, *beside, *of_task}):
            return self.group
        return None


def _name() -> sa.String:
    return sa.String(NAME_LENGTH)


def _id(sequence: str, schema: str | None) -> sa.Column[int]:
    return sa.Column("id", Id, sa.Sequence(sequence, schema=schema), primary_key=True, autoincrement=True)


def _task_table(metadata: sa.MetaData, name: str, schema: str | None) -> sa.Table:
    """Celery 5.7's columns in Celery's order, then ours, which are nullable so that Celery can go on writing."""
    table = sa.Table(
        name,
        metadata,
        _id(TASK_SEQUENCE, schema),
        sa.Column("task_id", _name(), unique=True),
        sa.Column("status", sa.String(STATE_LENGTH), default=states.PENDING),
        sa.Column("result", Blob),
        sa.Column("date_done", Timestamp, default=utc_now, index=True),
        sa.Column("traceback", LongText),
        sa.Column("children", Blob),
        sa.Column("name", _name()),
        sa.Column("args", Blob),
        sa.Column("kwargs", Blob),
        sa.Column("worker", _name()),
        sa.Column("retries", sa.Integer),
        sa.Column("queue", _name()),
        sa.Column("stamps", Blob),
        sa.Column("content_type", _name()),
        sa.Column("date_queued", Timestamp),
        sa.Column("date_started", Timestamp),
        sa.Column("parent_id", _name()),
        sa.Column("root_id", _name()),
        sa.Column("group_id", _name()),
        schema=schema,
        **TABLE_OPTIONS,
    )
    # For people's questions, which are about what has not succeeded. It costs a store next to nothing.
    sa.Index(None, table.c.status, table.c.date_done, **only_where(not_succeeded(table)))
    return table


def not_succeeded(table: sa.Table) -> sa.ColumnElement[bool]:
    """Of a task: its state is not SUCCESS, in the words of the index that holds only such rows."""
    return table.c.status != sa.literal_column(f"'{states.SUCCESS}'")


def _group_table(metadata: sa.MetaData, name: str, schema: str | None) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _id(GROUP_SEQUENCE, schema),
        sa.Column("taskset_id", _name(), unique=True),
        sa.Column("result", Blob),
        sa.Column("date_done", Timestamp, default=utc_now, index=True),
        sa.Column("content_type", _name()),
        schema=schema,
        **TABLE_OPTIONS,
    )


def _waiter_table(metadata: sa.MetaData, name: str, schema: str | None) -> sa.Table:
    """Who waits for which task. It may be lost in a crash: waiters also look by themselves.

    Not in the metadata of the others, so that ``Task.metadata.create_all`` works on databases that cannot notify.
    """
    return sa.Table(
        name,
        metadata,
        sa.Column("awaited_id", _name(), primary_key=True),
        sa.Column("channel", sa.String(63), primary_key=True),
        sa.Column("date_added", Timestamp, nullable=False),
        prefixes=["UNLOGGED"],
        schema=schema,
    )


def _chord_table(metadata: sa.MetaData, name: str, schema: str | None) -> sa.Table:
    """One chord: how many parts it has, of which tasks, who is elected to send the body, and what that takes.

    A body that JSON cannot write is not kept; ``bare_body`` is what is needed to let it fail.
    """
    return sa.Table(
        name,
        metadata,
        sa.Column("group_id", _name(), primary_key=True),
        sa.Column("size", sa.Integer),
        sa.Column("header", Blob),
        sa.Column("body", Blob),
        sa.Column("content_type", _name()),
        sa.Column("date_created", Timestamp, nullable=False, index=True),
        sa.Column("claimed_by", sa.String(32)),
        sa.Column("claimed_until", Timestamp),
        sa.Column("date_dispatched", Timestamp, index=True),  # to find the few that wait for a process to send the body
        sa.Column("members", Blob, info=OPTIONAL),
        sa.Column("bare_body", Blob, info=OPTIONAL),
        schema=schema,
        **{**TABLE_OPTIONS, "sqlite_autoincrement": False},
    )


def _part_table(metadata: sa.MetaData, name: str, schema: str | None) -> sa.Table:
    """One part of a chord, or the word that one was added to it (see ``rows.chords.ADDED``).

    A reused signature may stand twice in a header, so the position is part of the key.
    """
    return sa.Table(
        name,
        metadata,
        sa.Column("group_id", _name(), primary_key=True),
        sa.Column("task_id", _name(), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("status", sa.String(STATE_LENGTH), nullable=False),
        sa.Column("result", Blob),
        sa.Column("content_type", _name()),
        schema=schema,
        **{**TABLE_OPTIONS, "sqlite_autoincrement": False},
    )


def _worker_table(metadata: sa.MetaData, name: str, schema: str | None) -> sa.Table:
    """One run of a worker, from its start to its end.

    A worker that is started anew has a row more, and so have two workers that were given one name: which of them ran
    a task is told by when it began. So ``date_started`` and ``clock`` are times of the worker's own clock, as the
    ``date_started`` of its tasks is; the others are of the database's clock, by which all are told to be alive.
    """
    return sa.Table(
        name,
        metadata,
        sa.Column("name", _name(), primary_key=True),
        sa.Column("run_id", sa.String(36), primary_key=True),
        sa.Column("host", _name()),
        sa.Column("pid", sa.Integer),
        sa.Column("app", _name()),
        sa.Column("date_started", Timestamp),
        sa.Column("date_seen", Timestamp),
        sa.Column("clock", Timestamp),
        sa.Column("date_ended", Timestamp),
        sa.Column("versions", sa.String(255)),
        sa.Column("spooled", sa.Integer),
        sa.Column("busy", sa.Integer),
        sa.Column("concurrency", sa.Integer),
        schema=schema,
        **{**TABLE_OPTIONS, "sqlite_autoincrement": False},
    )


class _Row:
    """What the three classes share: the table can be renamed, and a row shown as a dict."""

    __table__: ClassVar[sa.Table]
    shown: ClassVar[tuple[str, ...]]
    default_name: ClassVar[str]

    @classmethod
    def configure(cls, schema: str | None = None, name: str | None = None) -> None:
        """Rename the table, before its first use. A backend has tables of its own: set ``database_table_names`` there.

        ``schema`` is also that of the sequence; ``None`` stands for the default of either.
        """
        cls.__table__.schema = schema
        cls.__table__.name = name or cls.default_name
        cls.__table__.c.id.default.schema = schema  # type: ignore[union-attr]

    def to_dict(self) -> dict[str, Any]:
        """The columns of the row by name, without the ``id``; payloads as the bytes that are stored."""
        return {name: getattr(self, name) for name in self.shown}


class TaskRow(_Row):
    """One task's state and result."""

    shown = tuple(name for name in TASK_COLUMNS if name != "content_type")
    default_name = TableNames().task
    task_id: Any
    status: Any

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id

    def __repr__(self) -> str:
        return f"<Task {self.task_id} state: {self.status}>"


class GroupRow(_Row):
    """The members of one saved group."""

    shown = ("taskset_id", "result", "date_done")
    default_name = TableNames().group
    taskset_id: Any
    result: Any

    def __init__(self, taskset_id: str, result: bytes | None) -> None:
        self.taskset_id = taskset_id
        self.result = result

    def __repr__(self) -> str:
        return f"<TaskSet: {self.taskset_id}>"


@dataclass(frozen=True, eq=False)
class Models:
    """The tables of one backend, and their classes."""

    task: sa.Table
    group: sa.Table
    waiters: sa.Table
    chords: sa.Table
    parts: sa.Table
    workers: sa.Table

    def tables_for(self, impl: DefaultImpl) -> tuple[sa.Table, ...]:
        """The tables that a database has use for, in the order in which they are created."""
        return (self.task, self.group, *(table for tables in self.optional_for(impl) for table in tables))

    def optional_for(self, impl: DefaultImpl) -> tuple[tuple[sa.Table, ...], ...]:
        """Our own tables, which the backend can do without. Of those that stand together, it uses all or none."""
        waiting = ((self.waiters,),) if impl.supports_notify else ()
        return (*waiting, (self.chords, self.parts), (self.workers,))

    @property
    def version_table(self) -> str:
        """Name of the table that records the schema's version; it stands beside the task table."""
        return f"{self.task.name}_version"

    @property
    def names(self) -> set[str]:
        """Whatever has a name in the database, but indexes, whose names are shortened."""
        tables = (self.task, self.group, self.waiters, self.chords, self.parts, self.workers)
        schemas = (self.task.schema, self.group.schema)
        return {self.version_table, TASK_SEQUENCE, *(table.name for table in tables), *filter(None, schemas)}

    @memoized_property
    def classes(self) -> tuple[type[Any], type[Any], type[Any]]:
        """``Task``, ``TaskExtended`` and ``TaskSet``, mapped on these tables."""

        class Base(DeclarativeBase):
            metadata = self.task.metadata

        class Task(TaskRow, Base):
            __table__ = self.task
            __mapper_args__ = {"include_properties": ["id", *TASK_COLUMNS]}  # noqa: RUF012 - SQLAlchemy's way

        class TaskExtended(Task):
            __mapper_args__ = {"properties": {name: self.task.c[name] for name in EXTENDED_COLUMNS}}  # noqa: RUF012
            shown = (*TaskRow.shown, *EXTENDED_COLUMNS)

        class TaskSet(GroupRow, Base):
            __table__ = self.group

        return Task, TaskExtended, TaskSet


_by_names: WeakValueDictionary[TableNames, Models] = WeakValueDictionary()


def models_for(names: TableNames | None = None) -> Models:
    """The tables of the given names, or of Celery's. The same names give the same tables while somebody has them."""
    names = names or TableNames()
    return _by_names.get(names) or _by_names.setdefault(names, _made(names))


def _made(names: TableNames) -> Models:
    metadata = sa.MetaData()
    return Models(
        task=_task_table(metadata, names.task, names.task_schema),
        group=_group_table(metadata, names.group, names.group_schema),
        waiters=_waiter_table(sa.MetaData(), f"{names.task}_waiters", names.task_schema),
        chords=_chord_table(metadata, f"{names.task}_chords", names.task_schema),
        parts=_part_table(metadata, f"{names.task}_parts", names.task_schema),
        workers=_worker_table(metadata, f"{names.task}_workers", names.task_schema),
    )


def models_with(names: TableNames, task_cls: type[Any] | None, taskset_cls: type[Any] | None) -> Models:
    """The tables of the given names; instead of those of tasks and groups, what a user's classes are mapped on."""
    if task_cls is not None:
        names = names._replace(task=task_cls.__table__.name, task_schema=task_cls.__table__.schema)
    if taskset_cls is not None:
        names = names._replace(group=taskset_cls.__table__.name, group_schema=taskset_cls.__table__.schema)
    models = models_for(names)
    task = models.task if task_cls is None else task_cls.__table__
    group = models.group if taskset_cls is None else taskset_cls.__table__
    return models if (task, group) == (models.task, models.group) else replace(models, task=task, group=group)


class MappedClass:
    """A class on the tables of each backend, which is mapped when somebody asks for it; of a class, the default.

    Args:
        default: the class on the tables of Celery's names.
        plain: its position in :attr:`Models.classes`, and ``extended`` the one with ``result_extended``.
    """

    def __init__(self, default: type[Any], plain: int, extended: int) -> None:
        self._default = default
        self._positions = plain, extended

    def __get__(self, backend: Any, owner: type[Any]) -> Any:
        return self._default if backend is None else backend.models.classes[self._positions[backend.settings.extended]]


def row_of(task: Any) -> dict[str, Any]:
    """What was set of an object that is mapped on a table, by the names of the columns; without the ``id``."""
    set_of, attributes = vars(task), sa.inspect(type(task)).column_attrs
    columns = {each.columns[0].key: set_of[each.key] for each in attributes if each.key in set_of}
    return {name: value for name, value in columns.items() if name != "id"}


#: Never dropped: the classes below are those that everybody imports.
_DEFAULT: Final = models_for()
Task, TaskExtended, TaskSet = _DEFAULT.classes
