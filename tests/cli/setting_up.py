"""What the tests of the commands that set up have in common."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from cli.run import Ended
from legacy import tables
from servers import Database

PASSWORD = "sec:ret/1"
#: How the password may look anywhere.
SECRETS = ("sec:ret", "sec%3Aret")
HEAD = "0005"
#: A version of a release to come.
AHEAD = "9999"


def role(database: Database, name: str = "clerk", *, write: bool = True) -> str:
    """The URL of a role that may neither create nor alter anything."""
    database.server.create_role(name, PASSWORD, database.name, ddl=False, write=write)
    return database.server.url(database.name, user=name, password=PASSWORD)


def old_tables(database: Database, release: str) -> None:
    """The empty tables of an older release of Celery."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    tables(release, engine)
    engine.dispose()


def run(database: Database, statements: list[str]) -> None:
    """Run statements, as an administrator does."""
    for statement in statements:
        database.execute(statement)


def table_names(database: Database) -> set[str]:
    """The tables that are there."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    names = set(sa.inspect(engine).get_table_names())
    engine.dispose()
    return names


def statements_of(ended: Ended) -> list[str]:
    """The statements that a command has printed."""
    return [statement for statement in ended.text.split(";\n") if statement.strip()]


def shows_a_password(*endeds: Ended) -> bool:
    """Whether any of what was printed holds the password of a role."""
    return any(secret in ended.text + ended.told for ended in endeds for secret in SECRETS)
