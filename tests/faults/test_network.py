"""The network drops, delays and cuts connections, also in the middle of a statement or of its answer."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from celery import states
from celery.exceptions import BackendGetMetaError, BackendStoreError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult
from sqlalchemy import make_url

from celery_sql_results import DatabaseBackend
from chords.actors import count_in, open_chord, part
from faults.actors import LONG
from faults.conftest import Backends, Loads
from faults.load import Verdict, until
from faults.trouble import lose, proxied
from servers import Database
from servers.pool import on
from servers.proxy import DIRECTIONS, Direction, Proxy
from support import close

databases = on("postgresql", "mariadb")

#: How often the load is cut in each direction, and the most bytes that pass before: some statements.
CUTS, WITHIN = 15, 20_000
#: Seconds that a piece is late while the network is slow, and that the network is away.
SLOW, AWAY = 0.05, 0.5
#: What bounds each attempt, in seconds (2 is the least that libpq obeys); PostgreSQL's last is about data that the
#: other side does not take, in milliseconds.
BOUNDS = {
    "psycopg": {"connect_timeout": 2, "tcp_user_timeout": 2000},
    "psycopg2": {"connect_timeout": 2, "tcp_user_timeout": 2000},
    "pg8000": {"timeout": 2},
    "pymysql": {"ssl_disabled": True, "connect_timeout": 1, "read_timeout": 1, "write_timeout": 1},
}
#: More than the buffers of the system and of the proxy hold, so that the sender notices that nobody reads.
LARGE = 32_000_000


@databases
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_cut_in_the_middle(database: Database, load: Loads, direction: Direction) -> None:
    """What is cut off on the way back was stored, and is stored again: there is one row all the same."""
    chance = random.Random(direction)
    with proxied(database) as (proxy, url), load(url, direct=database.url) as under:
        for number in range(CUTS):
            proxy.cut_after(chance.randrange(WITHIN), direction)
            until(lambda cuts=number: proxy.cuts > cuts, "a connection is cut")
        under.go_on()

    assert under.verdict() == Verdict()


#: In a process of its own: pg8000 leaves the socket of a connection open that was cut, and Python complains of it.
PINGED = """
import sys
from celery_sql_results.connections import pool
from servers.proxy import Proxy
from sqlalchemy import make_url
from sqlalchemy.pool import QueuePool
from support import app_on

pool.PING_AFTER = 0.0
url, options = make_url(sys.argv[1]), {"poolclass": QueuePool} if sys.argv[2] == "QueuePool" else {}
with Proxy(url.port) as proxy:
    there = url.set(drivername="postgresql+pg8000", port=proxy.port).render_as_string(hide_password=False)
    backend = app_on(there, database_engine_options=options).backend
    backend.store_result("t", 1, "SUCCESS")
    proxy.resets = True
    for number in range(5):
        proxy.cut_after(0, "to client")
        print(backend.get_task_meta("t", cache=False)["result"], proxy.cuts)
"""


@on("postgresql")
@pytest.mark.parametrize("pool", ["ours", "QueuePool"])
def test_cut_while_a_connection_is_pinged(database: Database, pool: str) -> None:
    """pg8000 tells it as the system does, which is an error of no driver; the next connection is used."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PINGED, database.url, pool]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)

    assert done.stdout.splitlines() == [f"1 {number}" for number in range(1, 6)], done.stderr


@databases
def test_slow_then_away_then_cut(database: Database, load: Loads) -> None:
    with proxied(database) as (proxy, url), load(url, direct=database.url) as under:
        proxy.delay = SLOW
        under.go_on()
        proxy.delay = 0.0
        under.go_on()
        lose(proxy, AWAY)
        under.go_on()

    assert under.verdict() == Verdict()


def bounded(database: Database) -> dict[str, Any]:
    """Settings under which an operation ends soon, whatever the other side does."""
    bounds = BOUNDS[make_url(database.url).get_driver_name()]
    return {"database_engine_options": {"connect_args": bounds}, "result_backend_max_retries": 0}


@contextmanager
def black_hole(database: Database, backends: Backends) -> Iterator[tuple[DatabaseBackend, Proxy]]:
    """A backend that has stored once; the server accepts and never answers until the block ends, then all is well."""
    with proxied(database) as (proxy, url):
        backend = backends(url, **bounded(database))
        backend.store_result("before", 1, states.SUCCESS)
        proxy.silent = True
        yield backend, proxy
        proxy.silent = False
        backend.store_result("t", 3, states.SUCCESS)

        assert AsyncResult("t", app=backend.app).get(timeout=LONG) == 3
        assert backend.get_result("t") == 3
        close(backend)


@databases
def test_black_hole_for_new_connections(database: Database, backends: Backends) -> None:
    """Stores and waits fail as the settings say, and work again when it is over."""
    with black_hole(database, backends) as (backend, proxy):
        proxy.cut()
        with pytest.raises(BackendStoreError):
            backend.store_result("t", 2, states.SUCCESS)
        with pytest.raises(BackendGetMetaError):
            backend.get_task_meta("t")
        result = backend.app.AsyncResult("t", parent=backend.app.AsyncResult("before"))
        for follow_parents in (False, True):
            with pytest.raises(CeleryTimeoutError):
                result.get(timeout=0.1, follow_parents=follow_parents)


@databases
def test_black_hole_for_a_large_statement(database: Database, backends: Backends) -> None:
    """On a connection that is open already."""
    with black_hole(database, backends) as (backend, _proxy), pytest.raises(BackendStoreError):
        backend.store_result("t", "x" * LARGE, states.SUCCESS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above, of pg8000
@pytest.mark.parametrize(
    ("database", "driver"), [("mariadb", "pymysql"), ("postgresql", "pg8000")], indirect=["database"]
)
def test_black_hole_for_an_answer(database: Database, backends: Backends, driver: str) -> None:
    """Not with libpq, which knows no time-out for an answer."""
    pytest.importorskip(driver)
    database = replace(database, url=database.server.url(database.name, driver=driver))
    with black_hole(database, backends) as (backend, _proxy):
        with pytest.raises(CeleryTimeoutError):
            AsyncResult("t", app=backend.app).get(timeout=0.1)
        with pytest.raises(BackendStoreError):
            backend.store_result("t", 2, states.SUCCESS)
    gc.collect()  # while nobody minds the sockets that pg8000 has left open


@databases
def test_cut_after_a_part_was_added_to_a_chord(database: Database, backends: Backends) -> None:
    """It is added again, and awaited once."""
    with proxied(database) as (proxy, url):
        backend = backends(url)
        rows = backend.database.rows.chords
        assert rows is not None
        open_chord(rows, "g", None)
        rows.set_size("g", 1)
        proxy.cut_after(0, "to client")
        backend.add_to_chord("g", AsyncResult("added", app=backend.app))
        returned = [count_in(rows, part(task_id=task_id)) for task_id in ("a", "added")]

        assert proxy.cuts == 1
        assert [chord and chord.is_complete for chord in returned] == [False, True]
        close(backend)
