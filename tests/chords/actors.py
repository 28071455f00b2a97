"""What the processes of these tests do; see `concurrency.nursery`."""

from __future__ import annotations

import resource
import uuid
from datetime import timedelta
from typing import Any

from celery.app.task import Context

from celery_sql_results.rows import Chord, ChordRows
from chords.app import MortalBackend
from concurrency.actors import app, backend_on, quick

LEASE = timedelta(hours=1)


def part(**values: Any) -> dict[str, Any]:
    """The row of a part."""
    default = {"group_id": "g", "task_id": "a", "position": 0, "status": "SUCCESS", "result": b"1"}
    return {**default, "content_type": "application/json", **values}


def rows_on(url: str) -> ChordRows:
    """The rows, as a backend has them."""
    rows = backend_on(url).database.rows.chords
    assert rows is not None
    return rows


def claimed(url: str, group_id: str) -> bool:
    """Whether this process is elected."""
    return rows_on(url).claim(group_id, uuid.uuid4().hex, LEASE)


def returned(url: str, group_id: str, process: int, processes: int, parts: int) -> int:
    """Let one's parts return, and each fifth of the next process; how often was this process elected?"""
    rows = rows_on(url)
    return sum(
        elected(rows, part(group_id=group_id, task_id=f"task-{number}", position=number))
        for number in range(parts)
        if number % processes == process or (number % 5 == 0 and number % processes == (process + 1) % processes)
    )


def open_chord(rows: ChordRows, group_id: str, body: bytes | None, size: int | None = None) -> None:
    """Begin a chord whose header is flat."""
    rows.open({"group_id": group_id, "size": size, "header": None, "body": body, "content_type": "application/json"})


def count_in(rows: ChordRows, row: dict[str, Any]) -> Chord | None:
    """Store a part, and return how far its chord is."""
    rows.put_part(row)
    return rows.counted(row["group_id"])


def elected(rows: ChordRows, row: dict[str, Any]) -> bool:
    """Whether a part completes a chord and its process is elected, which then closes the chord."""
    chord, claimant = count_in(rows, row), uuid.uuid4().hex
    if chord is None or not chord.is_complete or not rows.claim(chord.group_id, claimant, LEASE):
        return False
    rows.close(chord.group_id, claimant)
    return True


def end_of_header(url: str, requests: list[dict[str, Any]], error: Exception | None = None) -> None:
    """Let tasks return, or fail. If whoever sends the body is condemned, the last part takes this process along."""
    backend = MortalBackend(app=app, url=url, engine_options=quick(url))
    for known in requests:
        if error is None:
            backend.mark_as_done(known["id"], known["id"], request=Context(known))
        else:
            backend.mark_as_failure(known["id"], error, request=Context(known))


def swept(url: str, number: int, size: int) -> tuple[int, int]:
    """Put chords of two in each of whose columns lie so many bytes, and look at them twice.

    Returns how many were ended, and the megabytes that this process has taken for it at most.
    """
    backend = backend_on(url)
    backend.store_result("first", 1, "SUCCESS")
    backend.sweep_chords()
    rows = backend.database.rows.chords
    assert rows is not None
    before, filler = peak(), b" " * size
    columns = {"header": filler, "body": filler, "members": filler, "bare_body": filler}
    for each in range(number):
        rows.open({"group_id": f"g-{each}", "size": 2, "content_type": "application/json", **columns})
    return backend.sweep_chords() + backend.sweep_chords(), (peak() - before) // 1024


def peak() -> int:
    """The kilobytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
