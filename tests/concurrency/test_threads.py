"""Many threads of one process share the backend of their app."""

from __future__ import annotations

from concurrency.kin import TIMES, share
from concurrency.nursery import Nursery, errors
from servers import Database
from servers.pool import on

#: No overflow: a connection beyond the pool's size is closed after use, and the server shows it for a moment longer.
THREADS, POOL_SIZE, MAX_OVERFLOW = 50, 7, 0


@on("postgresql", "mariadb", "sqlite")
def test_threads_share_one_engine(database: Database, nursery: Nursery) -> None:
    (outcome,) = nursery.at_once([(share, (database.url, THREADS, POOL_SIZE, MAX_OVERFLOW))])
    assert errors([outcome]) == []
    assert outcome.complaints == []
    crowd = outcome.value
    assert crowd.wrong == []
    assert (crowd.backends, crowd.engines) == (1, 1)
    assert 1 <= crowd.most <= POOL_SIZE + MAX_OVERFLOW
    assert (crowd.still_used, crowd.left) == (0, 0)
    assert database.execute("SELECT COUNT(*) FROM celery_taskmeta") == [(THREADS * TIMES,)]
    assert database.errors() == []
