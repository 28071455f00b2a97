"""The server, or what stands before it, goes away again and again, and comes back."""

from __future__ import annotations

import threading
import time

from celery import states
from celery.result import AsyncResult

from faults.actors import LONG
from faults.conftest import Backends, Loads
from faults.load import Verdict
from faults.trouble import disconnect, kill
from servers import Database, PgBouncer, PostgreSQL
from servers.pool import on, or_skip

#: How often the server is killed: often enough to meet all moments of a store.
KILLS = 10
#: How often all connections are ended, and the seconds in between: less than some of a load's stores take then.
ENDS, EACH = 30, 0.1
#: How often PgBouncer is restarted.
BOUNCES = 5
#: As the manual asks for; see docs/howto/pgbouncer.md.
BEHIND_PGBOUNCER = {"database_engine_options": {"connect_args": {"prepare_threshold": None}}}


@on("postgresql", "mariadb")
def test_killed_and_restarted(database: Database, load: Loads) -> None:
    with load(database.url) as under:
        for _ in range(KILLS):
            under.go_on()
            kill(database)
        under.go_on()

    assert under.verdict() == Verdict()


@on("postgresql", "mariadb")
def test_connections_ended_every_100_ms(database: Database, load: Loads) -> None:
    ended = 0
    with load(database.url) as under:
        for _ in range(ENDS):
            ended += disconnect(database)
            time.sleep(EACH)
        under.go_on()

    assert ended > ENDS
    assert under.verdict() == Verdict()


def test_pgbouncer_restarted(postgresql: Database, load: Loads) -> None:
    """In transaction mode, where nobody can listen."""
    assert isinstance(postgresql.server, PostgreSQL)
    with (
        or_skip("pgbouncer"),
        PgBouncer(postgresql.server) as bouncer,
        load(bouncer.url(postgresql.name), direct=postgresql.url, settings=BEHIND_PGBOUNCER) as under,
    ):
        for _ in range(BOUNCES):
            under.go_on()
            bouncer.restart()
        under.go_on()

    assert under.verdict() == Verdict()


@on("postgresql", "mariadb")
def test_first_wait_while_it_is_away(database: Database, backends: Backends) -> None:
    """A process whose first use of the database is a wait: that waits for the database as well."""
    backend, found = backends(database.url, database_create_tables_at_setup=False), []
    database.server.kill()
    waiting = threading.Thread(target=lambda: found.append(AsyncResult("t", app=backend.app).get(timeout=LONG)))
    waiting.start()
    database.server.restart()
    backend.store_result("t", 1, states.SUCCESS)
    waiting.join()

    assert found == [1]
