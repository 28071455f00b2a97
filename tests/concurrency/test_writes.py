"""Many processes write the same ids: what is final stays final, whichever order the writes arrive in."""

from __future__ import annotations

from collections import defaultdict

from celery import states

from concurrency.actors import WEIGHTS, Seen, backend_on, observe, set_up_and_store, store_at_random
from concurrency.conftest import Refused
from concurrency.nursery import Nursery, Outcome, complaints, errors
from servers import Database

WRITERS, STORES, IDS = 8, 500, 40


def final_states(database: Database, task_ids: set[str]) -> dict[str, tuple[str, str]]:
    """State and value of each task in the end."""
    backend = backend_on(database.url)
    metas = {task_id: backend.get_task_meta(task_id) for task_id in task_ids}
    backend.database.engine.dispose()
    return {task_id: (meta["status"], value_of(meta["result"])) for task_id, meta in metas.items()}


def value_of(result: object) -> str:
    """What a writer stored, be it a result or an exception."""
    return str(result.args[0]) if isinstance(result, Exception) else str(result)


def allowed(writes: list[Seen]) -> set[tuple[str, str]]:
    """What may be left of all writes to one id: a SUCCESS if there was one, else what is finished, else anything."""
    for group in ({states.SUCCESS}, states.READY_STATES):
        if found := {(state, value) for _id, state, value in writes if state in group}:
            return found
    return {(state, value) for _id, state, value in writes}


def by_id(written: list[Outcome]) -> dict[str, list[Seen]]:
    """All writes of all writers to each id."""
    found = defaultdict(list)
    for write in (write for outcome in written for write in outcome.value):
        found[write[0]].append(write)
    return found


def test_overlapping_writes(database: Database, nursery: Nursery, refused: Refused) -> None:
    assert errors(nursery.at_once([(set_up_and_store, (database.url, "first"))])) == []
    writers = [(store_at_random, (database.url, writer, STORES, IDS)) for writer in range(WRITERS)]
    *written, observed = nursery.at_once([*writers, (observe, (database.url, WRITERS))])
    assert errors([*written, observed]) == []
    assert complaints(written) == []
    looks = observed.value.pop("looks")
    assert looks > WRITERS
    assert observed.value == {}
    writes = by_id(written)
    assert {write[1] for id_writes in writes.values() for write in id_writes} == set(WEIGHTS)
    left = final_states(database, set(writes))
    assert {task_id: row for task_id, row in left.items() if row not in allowed(writes[task_id])} == {}
    if database.kind not in ("portable", "firebird"):  # which inserts first and updates when the server refuses
        assert refused() == []
