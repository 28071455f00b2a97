"""Processes that store at once, as the children of prefork workers do."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from billiard.context import ForkProcess

from benchmarks.case import RESULT, Round
from benchmarks.contenders import Contender

#: What each writer stores before the clock starts: then its connection is open, its statements are prepared and the
#: tables are not empty any more.
WARM_UP = 20


def new_ids() -> Iterator[str]:
    """As many new ids as are asked for."""
    while True:
        yield str(uuid.uuid4())


def store_at_once(contender: Contender, ids: Sequence[Iterable[str]], seconds: float) -> Round:
    """Fork a writer for each supply of ids, let them begin together, and return the time for one result of all."""
    barrier = multiprocessing.get_context("fork").Barrier(len(ids))
    pipes = [multiprocessing.Pipe(duplex=False) for _ in ids]
    writers = [
        ForkProcess(target=_write, args=(contender, its_ids, barrier, seconds, theirs), daemon=True)
        for its_ids, (_, theirs) in zip(ids, pipes, strict=True)
    ]
    for writer in writers:
        writer.start()
    rates = [ours.recv() for ours, _ in pipes]
    for writer in writers:
        writer.join()
    return Round([1 / sum(rates)])


def _write(contender: Contender, ids: Iterable[str], barrier: Barrier, seconds: float, connection: Connection) -> None:
    """Store for some time, and report how many results a second that were."""
    for task_id in islice(new_ids(), WARM_UP):
        contender.store(task_id, RESULT)
    barrier.wait()
    count, begin = 0, time.monotonic()
    for task_id in ids:
        contender.store(task_id, RESULT)
        count += 1
        if time.monotonic() >= begin + seconds:
            break
    connection.send(count / (time.monotonic() - begin))
