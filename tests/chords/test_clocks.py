"""Leases and expiry go by the clock of the database, not by those of hosts."""

from __future__ import annotations

import time
from datetime import timedelta

from celery import states

from celery_sql_results import DatabaseBackend
from chords.actors import open_chord
from chords.ahead import ahead
from servers import Database
from servers.pool import on

#: SQLite runs on the host that asks it, and of a database that nobody knows, nobody knows what its clock is called.
WITH_CLOCKS = on("postgresql", "mariadb")


def claimed_at_last(backend: DatabaseBackend, seconds: float) -> bool:
    """Whether a chord can be had within some seconds."""
    rows, end = backend.database.rows.chords, time.monotonic() + seconds
    assert rows is not None
    while not rows.claim("g", "me", timedelta(hours=1)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@WITH_CLOCKS
def test_a_host_ahead_that_dies_leaves_its_lease(backend: DatabaseBackend, database: Database) -> None:
    """As short as any other."""
    assert backend.database.rows.chords is not None
    open_chord(backend.database.rows.chords, "g", b"{}")
    assert ahead(database.url, "claim") == "True"
    assert claimed_at_last(backend, 30)


@WITH_CLOCKS
def test_a_host_ahead_waits_for_a_lease(backend: DatabaseBackend, database: Database) -> None:
    """It is not over there before it is here."""
    assert backend.database.rows.chords is not None
    open_chord(backend.database.rows.chords, "g", b"{}")
    assert backend.database.rows.chords.claim("g", "me", timedelta(hours=1))
    assert ahead(database.url, "claim") == "False"


@WITH_CLOCKS
def test_a_host_ahead_deletes_nothing_that_is_fresh(backend: DatabaseBackend, database: Database) -> None:
    """Neither results nor chords, which expire after an hour."""
    assert backend.database.rows.chords is not None
    open_chord(backend.database.rows.chords, "g", b"{}")
    backend.store_result("fresh", 1, states.SUCCESS)
    backend.app.GroupResult("group", [backend.app.AsyncResult("fresh")]).save()
    ahead(database.url, "cleanup")
    assert backend.get_state("fresh") == states.SUCCESS
    assert backend.app.GroupResult.restore("group") is not None
    assert backend.database.rows.chords.look("g") is not None
