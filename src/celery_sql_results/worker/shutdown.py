"""Whether the worker of this process was told to stop.

Its main process learns that by a signal, and the children that it has forked see it in memory that they share with it.
"""

from __future__ import annotations

import mmap
from typing import Any

from celery.signals import celeryd_init, worker_init, worker_shutdown, worker_shutting_down

__all__ = ["told_to_stop"]

#: Anonymous and shared with the children that are forked after this module was loaded. That is all of them, but with
#: ``celery --quiet``: it is the banner of a worker that asks for the backend before the fork.
_flag = mmap.mmap(-1, 1)


def told_to_stop() -> bool:
    """Whether a worker in this process, or in the one that it was forked from, is on its way out."""
    return _flag[0] != 0


def _stop(**_: Any) -> None:
    _flag[0] = 1


def _begin(**_: Any) -> None:
    _flag[0] = 0


worker_shutting_down.connect(_stop)
# A process may run one worker after another, as tests do. When a worker has shut down, its children are gone.
for signal in (celeryd_init, worker_init, worker_shutdown):
    signal.connect(_begin)
