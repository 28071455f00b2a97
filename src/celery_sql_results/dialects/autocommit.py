"""What the databases share that commit each statement by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from celery_sql_results.boundaries import undone
from celery_sql_results.connections.pool import connected
from celery_sql_results.connections.quick import DirectConnection, Way, quick_path

from .base import DefaultImpl
from .puts import Put, Row

__all__ = ["AutocommitImpl"]


class AutocommitImpl(DefaultImpl):
    """A database that commits each statement by itself, and can lock others out of the set-up."""

    isolation_level = "AUTOCOMMIT"
    session_isolation_level = "READ COMMITTED"
    setup_attempts = 1
    knows_taken_ids = True
    #: The statement that begins a transaction that writes.
    begin = "BEGIN"
    #: How a driver puts a row past SQLAlchemy; PostgreSQL also finds rows so.
    puts_by: Way | None = None

    def connect(self, engine: Engine) -> AbstractContextManager[Connection]:
        return connected(engine)

    def put_at_once(self, engine: Engine, where: Put, row: Row) -> bool:
        quick = None if self.puts_by is None else quick_path(engine, self.puts_by)
        if quick is None:
            return False
        try:
            with DirectConnection(quick) as connection:
                connection.execute(where.statement(self.upsert, tuple(row)), row)
        except exc.DBAPIError as error:
            if not self.is_taken(error):
                raise
            return False
        return True

    def put(self, connection: Connection, where: Put, row: Row, wake: sa.Executable | None = None) -> bool:
        connection.execute(where.statement(self.upsert, tuple(row)), row)
        return False

    def put_both(self, connection: Connection, where: Put, row: Row, parts: Put, part: Row) -> bool:
        with self._explicit_transaction(connection, self.begin):
            return super().put_both(connection, where, row, parts, part)

    def put_once(self, connection: Any, where: Put, row: Row) -> bool:
        return bool(connection.execute(where.statement(self.upsert, tuple(row)), row).rowcount)

    def begin_again(self, connection: Any) -> None:
        pass  # each statement was by itself

    def publish(self, connection: Connection) -> None:
        pass  # it can be used as soon as it is there

    def upsert(self, where: Put, columns: tuple[str, ...]) -> sa.Insert:  # pragma: no cover
        """The guarded upsert as one statement."""
        raise NotImplementedError

    def counts_rows(self, engine: Engine) -> bool:
        return True

    def delete_some(self, connection: Any, key: sa.Column[int], where: sa.ColumnElement[bool], limit: int) -> int:
        return int(connection.execute(self.deletion(key, where, limit)).rowcount)

    def deletion(self, key: sa.Column[int], where: sa.ColumnElement[bool], limit: int) -> sa.Delete:
        """Delete at most ``limit`` rows. If the database can, those that others hold are left to them."""
        batch = sa.select(key).where(where).limit(limit)
        if self.supports_skip_locked:
            batch = batch.with_for_update(skip_locked=True)
        return sa.delete(key.table).where(key.in_(batch))

    @contextmanager
    def _explicit_transaction(self, connection: Connection, begin: str) -> Iterator[None]:
        """A transaction on a connection that otherwise commits each statement. It is not left open.

        Not even by a time limit that strikes as it begins or ends: where it is not rolled back, :func:`connected`
        closes its connection.
        """

        def roll_back() -> None:
            with suppress(exc.SQLAlchemyError):  # there is none: it did not begin, or ended with its connection
                connection.exec_driver_sql("ROLLBACK")

        with undone(roll_back):
            connection.exec_driver_sql(begin)
            yield
            connection.exec_driver_sql("COMMIT")
