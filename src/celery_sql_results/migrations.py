"""The result tables beside those of an application that Alembic or Flask-Migrate looks after.

Either autogenerate is kept off them, and they make themselves ready as everywhere::

    context.configure(..., include_name=ResultTables(celery).include_name)

Or the application takes them in: a revision of its own makes them, and its metadata has them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import context
from sqlalchemy.schema import DropTable

from ._compat import memoized_property
from .dialects import impl_for
from .models import Models, models_for
from .schema import script, upgrade_within, version_table
from .settings import table_names

if TYPE_CHECKING:
    from alembic.operations import Operations

__all__ = ["ResultTables"]


class ResultTables:
    """All tables of one backend: those of Celery's names, and what this package adds to them.

    Args:
        app: the Celery app, whose settings say how the tables are called. They are read when they are needed.
        table_names: what ``database_table_names`` is, where there is no app, or in a revision, which is to stay.
        table_schemas: what ``database_table_schemas`` is.

    Raises:
        SettingError: the names cannot work; by each method, as they are read then.
    """

    def __init__(
        self,
        app: Any = None,
        *,
        table_names: Mapping[str, str | None] | None = None,
        table_schemas: Mapping[str, str | None] | None = None,
    ) -> None:
        self._app = app
        self._given = {"database_table_names": table_names, "database_table_schemas": table_schemas}

    @memoized_property
    def _models(self) -> Models:
        return models_for(table_names({} if self._app is None else self._app.conf, **self._given))

    def _tables(self, dialect: str) -> list[sa.Table]:
        return [*self._models.tables_for(impl_for(dialect)), version_table(self._models)]

    @memoized_property
    def _places(self) -> set[tuple[str | None, str]]:
        models = self._models
        tables = (models.task, models.group, models.waiters, models.chords, models.parts, models.workers)
        return {(table.schema, table.name.casefold()) for table in (*tables, version_table(models))}

    def include_name(self, name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
        """For ``include_name`` of Alembic's ``context.configure``: ``False`` for our tables, ``True`` for all else.

        Where you have one of your own: ``lambda *found: tables.include_name(*found) and mine(*found)``.
        """
        if type_ != "table" or name is None:
            return True
        schemas = {parent_names.get("schema_name")}
        if schemas == {None}:
            schemas |= self._default_schemas()
        return not any((schema, name.casefold()) in self._places for schema in schemas)

    def _default_schemas(self) -> set[str | None]:
        """What the settings may call the schema of which Alembic says ``None``: only a connection knows its name."""
        try:
            return {context.get_context().dialect.default_schema_name}
        except NameError:  # somebody compares outside of an env.py
            return {schema for schema, _ in self._places}

    def metadata(self, dialect: str) -> sa.MetaData:
        """What there is on a database, as one of the list that is Alembic's ``target_metadata``.

        Args:
            dialect: SQLAlchemy's name of the database: ``connection.dialect.name``.
        """
        metadata = sa.MetaData()
        for table in self._tables(dialect):
            table.to_metadata(metadata)
        return metadata

    def upgrade(self, op: Operations) -> None:
        """Make the tables, or add what older ones lack, by the connection of a revision and in its transaction.

        What is there stays, also what a worker or Celery's own backend has made. With ``--sql``, Alembic writes the
        statements for an empty database.

        Raises:
            SchemaError: a name is too long for this database.
            sqlalchemy.exc.DBAPIError: the database has refused a statement.
        """
        migration = op.get_context()
        if not migration.as_sql:
            upgrade_within(op.get_bind(), self._models)
            return
        for statement in script(migration.dialect, self._models):
            op.execute(sa.text(statement.replace(":", "\\:")))

    def downgrade(self, op: Operations) -> None:
        """Drop the tables, with all results. The sequences stay: tables of other names may take their ids from them."""
        for table in reversed(self._tables(op.get_context().dialect.name)):
            op.execute(DropTable(table, if_exists=True))
