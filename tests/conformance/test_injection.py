"""SQL is never put together from what users or strangers choose."""

from __future__ import annotations

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult

from celery_sql_results import DatabaseBackend, SchemaError
from servers import Database
from servers.pool import without
from support import Backends

#: Texts that end whatever they might stand in, and go on with an order.
EVIL = [
    "'; DROP TABLE celery_taskmeta; --",
    '"; DROP TABLE celery_taskmeta; --',
    "`; DROP TABLE celery_taskmeta; --",
    "') OR 1=1; DELETE FROM celery_taskmeta; --",
    "\\'; DELETE FROM celery_taskmeta; #",
    "%s %(id_)s :id_ {0} $1 ? %%",
    "' OR ''='",
    "🎉'\"`\\;",
]


@pytest.mark.parametrize("evil", EVIL)
def test_values(backends: Backends, evil: str) -> None:
    """Ids, states, results, tracebacks, groups: all of them are values, and come back."""
    backend = backends(result_extended=True)
    backend.store_result("mine", "untouched", states.SUCCESS)
    backend.store_result(evil, evil, evil[:50], traceback=evil)
    backend.save_group(evil, GroupResult(evil, [AsyncResult(evil, app=backend.app)], app=backend.app))
    found = backend.get_task_meta(evil)
    members = backend.restore_group(evil)

    assert (found["task_id"], found["status"], found["result"], found["traceback"]) == (evil, evil[:50], evil, evil)
    assert [member.id for member in members] == [evil]
    assert [state for _, state in sorted(backend.states_of([evil, "none"]).items())] == [evil[:50]]
    assert backend.get_result("mine") == "untouched"


@pytest.mark.parametrize("evil", EVIL)
def test_what_is_not_there_finds_nothing(backend: DatabaseBackend, evil: str) -> None:
    """Neither does it delete anything."""
    backend.store_result("mine", "untouched", states.SUCCESS)
    backend.forget(evil)
    backend.delete_group(evil)

    assert (backend.get_state(evil), backend.task_result_exists(evil)) == (states.PENDING, False)
    assert backend.get_result("mine") == "untouched"


@without("firebird", "names have at most 31 characters there: test_set_up.py tests longer ones")
@pytest.mark.parametrize("evil", [text for text in EVIL if text.isascii() and "%" not in text])
def test_names_of_tables(backends: Backends, database: Database, evil: str) -> None:
    """They come from the settings, and are quoted all the same. MariaDB allows no emoji in them."""
    if "mariadbconnector" in database.url:
        pytest.skip("The driver looks for parameters in such names, and sends what the server cannot read.")
    victim = backends()
    victim.store_result("mine", "untouched", states.SUCCESS)
    backend = backends(database_table_names={"task": evil, "group": f"{evil} group"[-55:]})
    backend.store_result("t", 1, states.SUCCESS)

    assert (backend.get_result("t"), backend.get_state("mine")) == (1, states.PENDING)
    assert (victim.get_result("mine"), victim.get_state("t")) == ("untouched", states.PENDING)


@pytest.mark.parametrize("evil", EVIL[:3])
def test_names_of_schemas(backends: Backends, evil: str) -> None:
    """One that is not there is an error, and nothing else happens."""
    victim = backends()
    victim.store_result("mine", "untouched", states.SUCCESS)
    with pytest.raises(SchemaError):
        backends(database_table_schemas={"task": evil, "group": evil}).store_result("t", 1, states.SUCCESS)

    assert victim.get_result("mine") == "untouched"
