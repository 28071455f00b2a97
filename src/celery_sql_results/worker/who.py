"""Who has opened a connection, as people see it who look at their server: an app, a host, and what the process is."""

from __future__ import annotations

import socket
from typing import Any

from celery.signals import celeryd_init, worker_init, worker_process_init, worker_ready, worker_shutdown

__all__ = ["who"]

#: Bytes of a name that PostgreSQL keeps.
LONGEST = 63
PACKAGE = "celery-sql-results"

#: What this process is. A child of a worker inherits it.
_role = "client"


def who(app: str | None) -> str:
    """The name of a connection that is opened now: ``celery-sql-results shop@host worker``. ASCII, 63 bytes at most.

    ``app`` is the name of the app. Of the connections that apps share, it is the name of the first.
    """
    found = f"{app or 'app'}@{socket.gethostname()}"
    place = "".join(each if each.isascii() and each.isprintable() else "?" for each in found)
    room = LONGEST - len(f"{PACKAGE}  {_role}")
    return f"{PACKAGE} {place[:room]} {_role}"


def _begin(**_: Any) -> None:
    global _role
    _role = "worker"


def _end(**_: Any) -> None:
    global _role
    _role = "client"


# Which of them comes first to this module depends on when the app is asked for its backend.
for signal in (celeryd_init, worker_init, worker_process_init, worker_ready):
    signal.connect(_begin)
worker_shutdown.connect(_end)
