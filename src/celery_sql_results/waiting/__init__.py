"""How a process waits for results.

``looker`` knows what is awaited, ``notifier`` is the contract of a way to wait, ``polling`` and ``listening`` are the
ways, ``choice`` takes the best one. ``waits`` and ``results`` are what Celery sees of it. A notification is a hint, the
row is the truth: a lost one costs time, never a result.
"""

from __future__ import annotations

from .choice import notifier_for
from .looker import Consumer
from .results import install
from .waits import INTERVAL, Waits

__all__ = ["INTERVAL", "Consumer", "Waits", "install", "notifier_for"]
