"""The indexes of the result tables: which there should be, which are missing, and what creates them.

A worker creates indexes only with the table that they belong to: on a large one, that takes long. So a table that an
older release has made may lack some, and somebody who may create them does so, while workers go on writing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from celery_sql_results.dialects import impl_for, name_of, schema_of
from celery_sql_results.dialects.types import only_where
from celery_sql_results.models import Models, not_succeeded

__all__ = ["Wanted", "index_statements", "missing_indexes", "wanted_indexes"]


@dataclass(frozen=True)
class Wanted:
    """An index of a result table.

    Attributes:
        table: a copy of the table, so that making the index changes nothing of ours.
        columns: the names of its columns.
        purpose: what it makes quick.
        is_costly: whether it makes each store slower by more than 3 %: then it is there only where somebody wants it.
    """

    table: sa.Table
    columns: tuple[str, ...]
    index: sa.Index
    purpose: str
    is_costly: bool


def wanted_indexes(models: Models) -> list[Wanted]:
    """All indexes that are of use beside the keys, of the columns that the tables have."""
    task, group = _bare(models.task), _bare(models.group)
    found = [
        _wanted(task, ("date_done",), "deletes what has expired, and shows the latest results"),
        _wanted(group, ("date_done",), "deletes the groups that have expired"),
        _wanted(task, ("status", "date_done"), "finds what has not succeeded, and what is lost", not_succeeded(task)),
    ]
    if {"root_id", "group_id"} <= set(task.columns.keys()):  # which a class of the user's may not have
        no_root, of_group = task.c.root_id != task.c.task_id, task.c.group_id.is_not(None)
        found.append(_wanted(task, ("root_id",), "shows a workflow", no_root, is_costly=True))
        found.append(_wanted(task, ("group_id",), "shows the tasks of a group", of_group, is_costly=True))
    return found


def _bare(table: sa.Table) -> sa.Table:
    copy = table.to_metadata(sa.MetaData())
    copy.indexes.clear()
    return copy


def _wanted(
    table: sa.Table,
    columns: tuple[str, ...],
    purpose: str,
    where: sa.ColumnElement[bool] | None = None,
    is_costly: bool = False,
) -> Wanted:
    index = sa.Index(None, *(table.c[name] for name in columns), **({} if where is None else only_where(where)))
    return Wanted(table, columns, index, purpose, is_costly)


def missing_indexes(connection: Connection, models: Models) -> list[Wanted]:
    """The indexes that are not there, of tables and columns that are.

    An index of somebody else's serves as well, if it holds all rows and begins with the same columns.
    """
    there = {table.fullname: _There(connection, table) for table in (models.task, models.group)}
    return [wanted for wanted in wanted_indexes(models) if there[wanted.table.fullname].lacks(wanted)]


class _There:
    """What is there of one table."""

    def __init__(self, connection: Connection, table: sa.Table) -> None:
        impl, self._connection = impl_for(connection.dialect.name), connection
        self._columns = impl.look_at(connection, [table])[table].columns
        indexes: list[Any] = []
        if self._columns:
            indexes += sa.inspect(connection).get_indexes(table.name, schema_of(connection, table))
        invalid = impl.indexes.invalid(connection, table)
        valid = [index for index in indexes if index["name"] not in invalid]
        self._names = {connection.dialect.identifier_preparer.quote(index["name"]) for index in valid}
        self._whole = [tuple(index["column_names"]) for index in valid if not _is_partial(index)]

    def lacks(self, wanted: Wanted) -> bool:
        """Whether an index could be there, and is not."""
        serves = any(columns[: len(wanted.columns)] == wanted.columns for columns in self._whole)
        is_there = serves or name_of(self._connection, wanted.index) in self._names
        return set(wanted.columns) <= self._columns and not is_there


def _is_partial(index: Any) -> bool:
    return any(option.endswith("_where") for option in index.get("dialect_options", ()))


def index_statements(connection: Connection, missing: Collection[Wanted]) -> Iterator[str]:
    """What creates indexes without stopping those who write, as far as the database can.

    Each statement is to be run by itself, in no transaction: ``exec_driver_sql`` on the engine of the backend.
    """
    indexes = impl_for(connection.dialect.name).indexes
    for wanted in missing:
        yield from indexes.statements(connection, wanted.table, wanted.index)
