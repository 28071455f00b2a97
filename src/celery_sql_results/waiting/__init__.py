"""How a process waits for results.

``looker`` knows what is awaited, ``notifier`` is the contract of a way to wait, ``polling`` and ``listening`` are the
ways, ``choice`` takes the best one. ``waits`` is what a backend sees of it; ``results`` and ``joining`` are what Celery
does: results, and sets of them. A notification is a hint, the
row is the truth: a lost one costs time, never a result.
"""

from __future__ import annotations

from .choice import notifier_for
from .joining import metas
from .looker import Consumer
from .results import install
from .waits import INTERVAL, Wait, Waits

__all__ = ["INTERVAL", "Consumer", "Wait", "Waits", "install", "metas", "notifier_for"]
