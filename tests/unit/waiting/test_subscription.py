"""What one wait makes of the rows that another thread finds for it."""

from __future__ import annotations

import threading
from typing import Any

from celery import states

from celery_sql_results.waiting.subscription import Subscription

ROW = {"task_id": "t", "status": states.SUCCESS, "result": b"1", "traceback": None}


class Slow(Subscription):
    """The thread that looks is interrupted between what it finds and what it hands over."""

    def __init__(self) -> None:
        super().__init__(["t"], states.READY_STATES, every_state=False)
        self.found, self.goes_on = threading.Event(), threading.Event()

    def _is_news(self, row: Any) -> bool:
        found = super()._is_news(row)
        self.found.set()
        self.goes_on.wait()
        return found


def test_what_is_found_is_not_there_yet() -> None:
    """A wait that ended then would be without its result."""
    wait = Slow()
    looking = threading.Thread(target=wait.offer, args=([ROW],))
    looking.start()
    wait.found.wait()
    early = ([*wait.take(0)], len(wait.missing), wait.untaken)
    wait.goes_on.set()
    looking.join()
    late = ([*wait.take(0)], wait.untaken)

    assert (early, late) == (([], 0, 1), ([ROW], 0))
