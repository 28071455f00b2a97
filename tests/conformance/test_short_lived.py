"""`database_short_lived_sessions`: a test suite drops and copies the database of an app that is still alive."""

from __future__ import annotations

import psycopg
import pytest
from celery import states

from servers import Database
from servers.pool import on
from support import Backends

FREE = "test_short_lived"


def copy_and_drop(database: Database) -> int:
    """Copy the database, look into the copy, and drop it; return how many results it had."""
    database.server.execute(f"DROP DATABASE IF EXISTS {FREE}")
    database.server.execute(f"CREATE DATABASE {FREE} TEMPLATE {database.name}")
    ((count,),) = database.server.execute("SELECT COUNT(*) FROM celery_taskmeta", database=FREE)
    database.server.execute(f"DROP DATABASE {FREE}")
    return int(count)


@on("postgresql")
def test_a_database_is_copied_and_dropped(database: Database, backends: Backends) -> None:
    """Nobody is connected between two uses, whatever was done."""
    backend = backends(database_short_lived_sessions=True, database_listen=False)
    backend.store_result("t", 1, states.SUCCESS)
    found = backend.app.AsyncResult("t").get(timeout=10)
    copied = copy_and_drop(database)
    database.server.execute(f"DROP DATABASE {database.name}")

    assert (found, copied) == (1, 1)


@on("postgresql")
def test_a_pool_keeps_its_connection(database: Database, backends: Backends) -> None:
    """That is what the setting is for."""
    backends(database_idle_timeout=60).store_result("t", 1, states.SUCCESS)
    with pytest.raises(psycopg.errors.ObjectInUse):
        copy_and_drop(database)
