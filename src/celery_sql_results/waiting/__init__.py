"""How a process waits for results.

``looker`` owns the clock and reads rows, for all in this process who wait on the same tables. Each wait is a
``subscription``; ``awaited`` knows them by their ids, ``schedule`` says when each is due, and ``asking`` is what the
database is asked. ``notifier`` is the contract of what listens beside it, ``listening`` and ``polling`` are the ways,
and ``choice`` takes the best one. A backend has a ``share`` of the looker; ``waits`` is what it sees of all this.
``results``, ``joining``, ``leaves`` and ``watching`` are what Celery sees: results, sets of them, and ``then``. A
notification is a hint, the row is the truth: a lost one costs time, never a result.
"""

from __future__ import annotations

from .aio import Seen, as_completed
from .choice import looker_for
from .joining import metas
from .listening import arrives
from .looker import Looker
from .results import install
from .share import Share, when_closed
from .subscription import Subscription
from .waits import INTERVAL, Wait, Waits

__all__ = [
    "INTERVAL",
    "Looker",
    "Seen",
    "Share",
    "Subscription",
    "Wait",
    "Waits",
    "arrives",
    "as_completed",
    "install",
    "looker_for",
    "metas",
    "when_closed",
]
