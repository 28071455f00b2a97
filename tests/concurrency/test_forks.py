"""A process that has used the backend forks others that use it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
from celery import states
from celery.signals import worker_ready, worker_shutdown
from celery.utils.objects import Bunch

from concurrency.kin import (
    TIMES,
    Family,
    raise_children,
    raise_children_while_beginning,
    raise_children_while_busy,
)
from concurrency.nursery import Nursery, errors
from faults.trouble import locked
from servers import Database
from servers.pool import on
from support import app_on, close, fork

CHILDREN, FORKS = 8, 200
#: A parent, which differs from others in what else it does when it forks.
Parent = Callable[[str, int], Family]


@pytest.mark.parametrize(
    ("database", "parent"),
    [
        *((kind, raise_children) for kind in ("postgresql", "mariadb", "sqlite")),
        *((kind, raise_children_while_busy) for kind in ("postgresql", "mariadb")),
        ("postgresql", raise_children_while_beginning),
    ],
    indirect=["database"],
)
def test_children_use_the_backend_of_their_parent(database: Database, nursery: Nursery, parent: Parent) -> None:
    (outcome,) = nursery.at_once([(parent, (database.url, CHILDREN))])
    assert errors([outcome]) == []
    family: Family = outcome.value
    assert family.wrong == []
    assert outcome.complaints == []
    if database.kind == "sqlite":
        assert database.execute("PRAGMA integrity_check") == [("ok",)]
    else:
        assert len({family.before, *family.children}) == CHILDREN + 1
    ((stored,),) = database.execute("SELECT COUNT(*) FROM celery_taskmeta WHERE task_id NOT LIKE 'busy-%'")
    assert stored == (CHILDREN + 2) * TIMES
    assert database.errors() == []


@on("postgresql", "mariadb")
def test_a_parent_keeps_its_connection(database: Database, nursery: Nursery) -> None:
    (outcome,) = nursery.at_once([(raise_children, (database.url, CHILDREN))])
    assert errors([outcome]) == []
    assert outcome.value.after == outcome.value.before


def in_a_child(do: Callable[[], object]) -> int:
    """Do something in a forked process; return its exit status."""
    child = fork()
    if not child:
        status = 1
        try:
            do()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@on("sqlite")
def test_children_of_a_worker_whose_upkeep_never_rests(database: Database) -> None:
    """A lock inside of SQLite that a thread of the parent held as it forked would never be free in the child."""
    backend = app_on(database.url, database_upkeep_interval=0.0001, database_idle_timeout=0.0001).backend
    backend.store_result("before", 1, states.SUCCESS)
    worker_ready.send(Bunch(app=backend.app))

    def child() -> None:
        signal.alarm(20)
        backend.store_result(f"child-{os.getpid()}", 1, states.SUCCESS)

    found = [in_a_child(child) for _ in range(FORKS)]
    worker_shutdown.send(Bunch(app=backend.app))
    assert found == [0] * FORKS
    close(backend)


@on("postgresql", "mariadb")
def test_an_engine_that_was_given_up_is_not_shared_with_a_child(database: Database) -> None:
    """Whoever has it goes on using it, and a child must not use the parent's connections."""
    backend = app_on(database.url, result_backend_max_retries=0).backend
    backend.store_result("before", 1, states.SUCCESS)
    with backend.database.engine.connect():  # two connections, since one is in use as it is given up
        backend.store_result("used", 1, states.SUCCESS)
        backend.session_manager.invalidate(database.url, **backend.engine_options, short_lived_sessions=False)
        backend.store_result("pooled", 1, states.SUCCESS)
        child = in_a_child(lambda: [backend.store_result(f"child-{number}", 1, states.SUCCESS) for number in range(3)])
        for number in range(3):
            backend.store_result(f"parent-{number}", 1, states.SUCCESS)

    ((stored,),) = database.execute("SELECT COUNT(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")
    assert (child, stored, database.errors()) == (0, 9, [])
    close(backend)


@on("postgresql", "mariadb")
def test_a_child_does_not_wait_for_what_hangs_in_its_parent(database: Database) -> None:
    """While STARTED hangs, others are left out; in a child none of that goes on."""
    backend = app_on(database.url).backend
    backend.store_result("before", 1, states.SUCCESS)
    reader, writer = os.pipe()

    def child() -> None:
        os.read(reader, 1)  # until nothing is locked
        backend.store_result("child", None, states.STARTED)

    with locked(database):
        backend.store_result("hangs", None, states.STARTED)
        statuses: list[int] = []
        waits = threading.Thread(target=lambda: statuses.append(in_a_child(child)))
        waits.start()
        waits.join(1)
    os.write(writer, b"!")
    waits.join()

    assert (statuses, backend.get_state("child")) == ([0], states.STARTED)
    for end in (reader, writer):
        os.close(end)
    close(backend)
