"""A process forks while it empties its spool, as a worker does that starts with something in it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from celery import states

from faults.conftest import Apps
from faults.keepers import emptied
from servers import Database
from servers.pool import on
from support import fork

#: Entries that wait, and children: enough that each fork meets an entry that is being stored.
ENTRIES, CHILDREN = 300, 4


def store_and_end(backend: Any, task_id: str) -> None:
    """What a child does."""
    status = 1
    with suppress(Exception):
        backend.store_result(task_id, task_id, states.SUCCESS)
        status = 0
    os._exit(status)


@on("sqlite")
def test_children_can_write(database: Database, apps: Apps) -> None:
    """SQLite keeps its locks by process: no child inherits one in the middle of a statement."""
    same = {"database_engine_options": {"connect_args": {"timeout": 2}}}  # one engine for both
    app, other = apps(**same), apps(**same, database_spool_dir=None, result_backend_max_retries=0)
    app.backend.store_result("before", 0, states.SUCCESS)
    other.backend.store_result("before", 0, states.SUCCESS)
    database.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
    for number in range(ENTRIES):
        app.backend.store_result(f"t-{number}", number, states.SUCCESS)
    database.execute("ALTER TABLE gone RENAME TO celery_taskmeta")
    app.backend.store_result("back", 0, states.SUCCESS)  # from now on, the spool is emptied
    children = []
    for number in range(CHILDREN):
        children.append(fork())
        if not children[-1]:
            store_and_end(other.backend, f"child-{number}")
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    assert emptied(app.backend)
    assert statuses == [0] * CHILDREN
    assert app.backend.get_result(f"t-{ENTRIES - 1}") == ENTRIES - 1
