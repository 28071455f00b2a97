"""The load that the tests here rely on finds what is lost, wrong, failed or hung."""

from __future__ import annotations

from faults.actors import CALLED, FAILED, RETURNED
from faults.conftest import Loads
from faults.load import Verdict, until
from servers import Database


def test_verdict(sqlite: Database, load: Loads) -> None:
    with load(sqlite.url) as under:
        under.go_on()
    assert under.verdict() == Verdict()
    assert set(under.noted(RETURNED, "waiter")) <= set(under.noted(RETURNED, "writer")) == set(under.noted(CALLED))

    sqlite.execute("DELETE FROM celery_taskmeta WHERE task_id = 'load-0-0'")
    sqlite.execute("UPDATE celery_taskmeta SET result = x'31' WHERE task_id = 'load-1-0'")
    sqlite.execute("UPDATE celery_taskmeta SET status = 'FAILURE' WHERE task_id = 'load-2-0'")
    found = under.verdict()
    assert found.lost == ("load-0-0",)
    assert sorted(found.wrong) == ["load-1-0", "load-2-0"]


def test_failures(sqlite: Database, load: Loads) -> None:
    """A table that goes away is an error, which does not pass."""
    with load(sqlite.url, waiters=0) as under:
        sqlite.execute("ALTER TABLE celery_taskmeta RENAME TO gone")
        until(lambda: under.noted(FAILED), "a store fails")
        sqlite.execute("ALTER TABLE gone RENAME TO celery_taskmeta")

    found = under.verdict()
    assert "no such table" in found.failed[0]
    assert found.missing != ()
    assert found.lost == ()
