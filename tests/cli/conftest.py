"""Fixtures of the command line."""

from __future__ import annotations

import pytest

from celery_sql_results import DatabaseBackend
from cli.rows import SOME, put
from cli.run import Program
from servers import Database

#: The two ways to the commands.
PROGRAMS = ("celery", "celery-sql-results")


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest, database: Database) -> Program:
    """Each of both programs in turn, on the database of the test: `program("list", "--json").json`."""
    if database.kind == "portable" and request.param != "celery":
        pytest.skip("only a project can say what this name of a database stands for")
    return Program(request.param, database.url)


@pytest.fixture
def results(database: Database) -> Program:
    """`celery results …` alone, where it makes no difference how somebody came to a command."""
    return Program("celery", database.url)


@pytest.fixture
def stored(backend: DatabaseBackend) -> DatabaseBackend:
    """A backend on a database that holds `rows.SOME`."""
    put(backend, *SOME)
    return backend
