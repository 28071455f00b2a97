"""Behind PgBouncer in transaction mode, where LISTEN does not work: results are polled, or heard on a direct way."""

from __future__ import annotations

from typing import Any

import pytest
from celery import states

from celery_sql_results.waiting import listening as listen
from servers import Database
from support import Backends
from waiting.conftest import PATIENCE, Aside, until, until_awaited, until_told
from waiting.test_faults import complaints
from waiting.writer import Scribe, Writer

#: A server connection is another's in each transaction, so what one prepares is not there for the next.
SETTINGS = {"database_engine_options": {"connect_args": {"prepare_threshold": None}}}


pytestmark = pytest.mark.drivers("psycopg")


@pytest.fixture
def database(pgbouncer: Database) -> Database:
    """The database of these tests."""
    return pgbouncer


@pytest.fixture
def writer(scribe: Scribe, database: Database) -> Any:
    """The other process, which writes through PgBouncer as well."""
    writer = Writer(scribe, database.url, SETTINGS)
    yield writer
    writer.leave()


def test_falls_back_to_polling(
    backends: Backends, writer: Writer, aside: Aside, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one warning, which names the remedy; whoever waits at that time or later gets his result."""
    monkeypatch.setattr(listen, "TEST_TIMEOUT", 0.2)
    backend = backends(**SETTINGS)
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until(lambda: complaints(caplog))
    writer.store("t", 1)
    assert value.result() == 1

    group = backend.app.GroupResult("g", [backend.app.AsyncResult(task_id) for task_id in "abc"])
    values = aside(group.get, timeout=PATIENCE)
    until_awaited(backend, *"abc")
    writer.store_all([(task_id, task_id, states.SUCCESS) for task_id in "cba"])
    assert values.result() == ["a", "b", "c"]
    assert [("database_listen_url" in complaint) for complaint in complaints(caplog)] == [True]


def test_a_result_that_comes_before_the_verdict(backends: Backends, writer: Writer, aside: Aside) -> None:
    """While it is not known yet whether notifications arrive, results are polled."""
    backend = backends(**SETTINGS)
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_awaited(backend, "t")
    writer.store("t", 1)

    assert value.result() == 1


@pytest.mark.usefixtures("told_only")
def test_a_direct_way_to_listen(
    backends: Backends, database: Database, writer: Writer, aside: Aside, caplog: pytest.LogCaptureFixture
) -> None:
    """All else goes through PgBouncer; nobody is warned, and the notification alone brings the result."""
    backend = backends(**SETTINGS, database_listen_url=database.server.url(database.name))
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_told(backend, "t")
    writer.store("t", 1)

    assert (value.result(), complaints(caplog)) == (1, [])


def test_polling_is_silent_if_asked_for(
    backends: Backends, writer: Writer, aside: Aside, caplog: pytest.LogCaptureFixture
) -> None:
    """`database_listen=False` listens to nobody and so warns of nothing."""
    backend = backends(**SETTINGS, database_listen=False)
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_awaited(backend, "t")
    writer.store("t", 1)

    assert (value.result(), complaints(caplog)) == (1, [])
