"""The race of table creation: any number of processes on an empty database, and nobody errs."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

import legacy
from concurrency.actors import (
    set_up_and_store,
    set_up_app_and_store,
    set_up_as_newer_and_store,
    set_up_as_older_and_store,
)
from concurrency.conftest import Refused
from concurrency.nursery import Nursery, Outcome, complaints, errors
from servers import Database
from servers.pool import on
from support import Backends

PROCESSES, ROUNDS, ROUNDS_OF_A_RELEASE = 50, 5, 2
#: Apps with names of their own, two of which have one table in common.
APPS = (("celery_taskmeta", "celery_tasksetmeta"), ("shop_tasks", "shop_groups"), ("post_tasks", "shop_groups"))
PROCESSES_OF_AN_APP, ROUNDS_OF_APPS = 7, 20
#: What the one process logs that made the tables ready.
CREATED = "are at schema version"
WITH_A_LOCK = on("postgresql", "mariadb", "sqlite")


def race(nursery: Nursery, database: Database, processes: int = PROCESSES) -> list[Outcome]:
    """Let processes meet on a database, each storing one result."""
    return nursery.at_once([(set_up_and_store, (database.url, f"task-{number}")) for number in range(processes)])


def renew(database: Database) -> None:
    """Make the database fresh and empty again."""
    database.server.drop_database(database.name)
    database.server.create_database(database.name)
    database.server.mark()


def make_old(database: Database, release: str) -> None:
    """Fill the database with the tables and rows of an older Celery."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    legacy.load(release, engine, "postgresql" if database.kind == "portable" else None)
    engine.dispose()


def creators(outcomes: list[Outcome]) -> int:
    """How many processes made the tables ready."""
    return sum(CREATED in message for outcome in outcomes for _level, message in outcome.logged)


def stored(database: Database, table: str = "celery_taskmeta") -> int:
    """How many of the processes' results are there."""
    ((count,),) = database.execute(f"SELECT COUNT(*) FROM {table} WHERE task_id LIKE 'task-%'")
    return int(count)


def assert_smooth(outcomes: list[Outcome], database: Database, refused: Refused) -> None:
    """No exception, no retry, one creator, every result, and nothing that the server refused."""
    assert errors(outcomes) == []
    assert complaints(outcomes) == []
    assert creators(outcomes) == 1
    assert stored(database) == len(outcomes)
    assert refused() == []


@WITH_A_LOCK
def test_race_on_an_empty_database(database: Database, nursery: Nursery, refused: Refused) -> None:
    for _ in range(ROUNDS):
        renew(database)
        assert_smooth(race(nursery, database), database, refused)


@WITH_A_LOCK
def test_apps_with_names_of_their_own(database: Database, nursery: Nursery, refused: Refused) -> None:
    """They share a database, its sequences and some tables."""
    calls = [
        (set_up_app_and_store, (database.url, *names, f"task-{number}"))
        for number in range(PROCESSES_OF_AN_APP)
        for names in APPS
    ]
    for _ in range(ROUNDS_OF_APPS):
        renew(database)
        outcomes = nursery.at_once(calls)

        assert errors(outcomes) == []
        assert complaints(outcomes) == []
        assert creators(outcomes) == len(APPS)
        assert [stored(database, task) for task, _group in APPS] == [PROCESSES_OF_AN_APP] * len(APPS)
        assert refused() == []


@WITH_A_LOCK
def test_releases_before_and_after(database: Database, nursery: Nursery, refused: Refused) -> None:
    """Whoever comes first: all work, and the tables end as those of the newest."""
    releases = (set_up_as_older_and_store, set_up_and_store, set_up_as_newer_and_store)
    calls = [(releases[number % 3], (database.url, f"task-{number}")) for number in range(30)]
    for _ in range(4):
        renew(database)
        outcomes = nursery.at_once(calls)

        assert errors(outcomes) == []
        assert complaints(outcomes) == []
        assert stored(database) == len(calls)
        assert database.execute("SELECT version_num FROM celery_taskmeta_version") == [("0006",)]
        assert database.execute("SELECT COUNT(later) FROM celery_taskmeta") == [(0,)]
        assert database.execute("SELECT COUNT(*) FROM celery_taskmeta_parts") == [(0,)]
        assert refused() == []


@WITH_A_LOCK
@pytest.mark.parametrize("release", legacy.RELEASES)
def test_race_to_upgrade_the_tables_of_an_older_celery(
    database: Database, nursery: Nursery, refused: Refused, release: str
) -> None:
    for _ in range(ROUNDS_OF_A_RELEASE):
        renew(database)
        make_old(database, release)
        assert_smooth(race(nursery, database), database, refused)


@on("postgresql", "mariadb")
def test_a_connection_that_is_lost_in_the_middle(database: Database, backends: Backends) -> None:
    """With the lock that it held. The tables are there in the end, and nobody was told but the log."""
    own_id, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
        "mariadb": ("SELECT connection_id()", "KILL {}"),
    }[database.kind]
    victims: list[int] = []

    def strike(_connection: object, cursor: Any, statement: str, *_: object) -> None:
        if "CREATE TABLE" in statement and not victims:
            cursor.execute(own_id)
            victims.append(cursor.fetchone()[0])
            database.execute(kill.format(*victims))

    settings = {"database_engine_callback": lambda engine: sa.event.listen(engine, "before_cursor_execute", strike)}
    backends(**settings).store_result("task-1", 1, "SUCCESS")

    assert (len(victims), stored(database)) == (1, 1)


@on("portable")
def test_race_without_a_lock(database: Database, nursery: Nursery) -> None:
    """Who loses the race is refused by the server and looks again: so errors on the server are to be expected."""
    for _ in range(3):
        renew(database)
        outcomes = race(nursery, database, 12)
        assert errors(outcomes) == []
        assert creators(outcomes) >= 1
        assert stored(database) == 12


@on("portable")
def test_race_to_upgrade_without_a_lock(database: Database, nursery: Nursery) -> None:
    make_old(database, "5.4.0")
    outcomes = race(nursery, database, 12)
    assert errors(outcomes) == []
    assert stored(database) == 12
