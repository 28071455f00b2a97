"""The queue of idle connections, which is taken from and added to without a lock."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.util import queue

from celery_sql_results.connections.pool import _Queue

#: Threads that share so many things, so often; and seconds after which one that still waits was not woken.
THREADS, THINGS, TIMES, LONG = 12, 2, 3_000, 30


@pytest.fixture(params=[False, True], ids=["fifo", "lifo"])
def idle(request: pytest.FixtureRequest) -> _Queue:
    """A queue of a few things."""
    made = _Queue(THINGS, use_lifo=request.param)
    for thing in range(THINGS):
        made.put(thing, block=False)
    return made


@pytest.fixture
def hectic() -> Iterator[None]:
    """Threads take turns in the middle of everything."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[], None]) -> None:
    """Run it in many threads; one that never ends is left behind."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)


@pytest.mark.usefixtures("hectic")
def test_nothing_is_lost_or_taken_twice(idle: _Queue) -> None:
    """And who waits is woken, though he would wait for ever."""
    locks, taken_twice, rounds = [threading.Lock() for _ in range(THINGS)], [], []

    def work() -> None:
        for _ in range(TIMES):
            thing = idle.get(timeout=None)
            if not locks[thing].acquire(blocking=False):
                taken_twice.append(thing)
                continue
            locks[thing].release()
            idle.put(thing, block=False)
        rounds.append(TIMES)

    together(work)

    assert taken_twice == []
    assert rounds == [TIMES] * THREADS
    assert sorted(idle.get(block=False) for _ in range(THINGS)) == [*range(THINGS)]


def test_there_is_none(idle: _Queue) -> None:
    """Not for who does not wait, nor for who does so in vain."""
    for _ in range(THINGS):
        idle.get()
    for patience in ({"block": False}, {"timeout": 0.01}, {"timeout": 0}):
        with pytest.raises(queue.Empty):
            idle.get(**patience)  # type: ignore[arg-type]


def test_there_is_no_room(idle: _Queue) -> None:
    with pytest.raises(queue.Full):
        idle.put("one more", block=False)


def test_who_waits_without_an_end_is_woken(idle: _Queue) -> None:
    found = []
    for _ in range(THINGS):
        idle.get()
    waiting = threading.Thread(target=lambda: found.append(idle.get(timeout=None)), daemon=True)
    waiting.start()
    while not idle._waiting:
        time.sleep(0.001)
    idle.put("late")
    waiting.join(LONG)
    assert found == ["late"]
