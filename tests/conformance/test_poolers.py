"""PgBouncer in its other modes than that of transactions: sessions work as without it, statements are refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult

from celery_sql_results import DatabaseUnusable
from faults.load import until
from servers import Database, PgBouncer, PostgreSQL
from servers.pool import or_skip
from support import Backends, app_on, close


@pytest.fixture
def database(postgresql: Database) -> Database:
    """The database of these tests."""
    return postgresql


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_session_mode(database: Database, backends: Backends, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without a setting; who waits is notified."""
    pytest.importorskip(driver)
    assert isinstance(database.server, PostgreSQL)
    with or_skip("pgbouncer"), PgBouncer(database.server, {"pool_mode": "session"}) as bouncer:
        backend = backends(bouncer.url(database.name, driver=driver))
        result = AsyncResult("t", app=backend.app)
        with ThreadPoolExecutor(1) as aside:
            waiting = aside.submit(result.get, timeout=60)
            if backend.database.impl.can_listen(backend.database.engine):
                until(lambda: backend.looker is not None and backend.looker.is_told(["t"]), "the first notification")
            backend.store_result("t", 1, states.SUCCESS)
            assert waiting.result() == 1
        for number in range(20):  # more often than psycopg runs a statement until it prepares it
            backend.store_result(f"t{number}", number, states.SUCCESS)
        GroupResult("g", [result], app=backend.app).save(backend=backend)
        found = GroupResult.restore("g", backend=backend, app=backend.app)
        assert found is not None
        assert found.get(timeout=60) == [1]
        backend.forget("t")

        assert (backend.get_state("t"), backend.get_result("t19")) == (states.PENDING, 19)
        close(backend)
    assert (caplog.messages, database.errors()) == ([], [])


def test_statement_mode(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """It knows no transactions: psycopg 3 says so at once. Other drivers only see that the connection is closed."""
    assert isinstance(database.server, PostgreSQL)
    with or_skip("pgbouncer"), PgBouncer(database.server, {"pool_mode": "statement"}) as bouncer:
        url = bouncer.url(database.name, driver="psycopg")
        with pytest.raises(DatabaseUnusable, match="Needed: pool_mode session or transaction"):
            _ = app_on(url, result_backend_base_sleep_between_retries_ms=600_000).backend

    assert caplog.messages == []
