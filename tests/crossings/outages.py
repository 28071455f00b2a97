"""Outages of a second: nobody reaches the database, or nobody may write."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

from servers.proxy import Proxy

#: Seconds.
A_SECOND = 1.0
#: Seconds between two cuts: connections that come meanwhile get no answer, and are lost.
TICK = 0.1
#: `with outage():` begins one; it ends by itself, at the latest when the block has ended.
Outage = Callable[[], AbstractContextManager[object]]

#: A database in the process cannot be away.
no_outage: Outage = nullcontext


def out_of_reach(proxy: Proxy) -> Outage:
    """Connections are lost, and new ones get no answer."""

    def be_away() -> None:
        end = time.monotonic() + A_SECOND
        while time.monotonic() < end:
            proxy.cut()
            time.sleep(TICK)
        proxy.silent = False

    @contextmanager
    def outage() -> Iterator[None]:
        proxy.silent = True
        proxy.cut()
        thread = threading.Thread(target=be_away)
        thread.start()
        yield
        thread.join()

    return outage


def locked_out(path: Path) -> Outage:
    """Somebody else holds the file of a SQLite database."""

    def hold(held: threading.Event) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            held.set()
            time.sleep(A_SECOND)
            connection.execute("ROLLBACK")

    @contextmanager
    def outage() -> Iterator[None]:
        held = threading.Event()
        thread = threading.Thread(target=hold, args=(held,))
        thread.start()
        held.wait()
        yield
        thread.join()

    return outage
