"""A worker's children know that it was told to stop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from celery.signals import celeryd_init, worker_init, worker_shutdown, worker_shutting_down

from celery_sql_results.worker.shutdown import told_to_stop
from support import fork


def in_child(found: Callable[[], bool], meanwhile: Callable[[], object]) -> bool:
    """What a process finds that was forked before something happened."""
    reading, writing = os.pipe()
    child = fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(found())
    meanwhile()
    os.close(writing)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    return bool(os.waitstatus_to_exitcode(status))


@pytest.fixture
def stop() -> Iterator[Callable[[], object]]:
    """Tell this process, as its signal handler does, and take it back in the end."""
    assert not told_to_stop()
    yield lambda: worker_shutting_down.send(sender="worker@host", sig="SIGTERM", how="Warm", exitcode=0)
    worker_init.send(sender=None)


def test_a_child_that_was_forked_before(stop: Callable[[], object]) -> None:
    """It shares the memory."""
    assert in_child(told_to_stop, stop)


def test_a_child_that_nobody_told(stop: Callable[[], object]) -> None:
    """It goes on."""
    assert not in_child(told_to_stop, bool)


@pytest.mark.parametrize("signal", [celeryd_init, worker_init, worker_shutdown])
def test_the_next_worker_of_the_process_was_not_told(stop: Callable[[], object], signal: object) -> None:
    """Nor is what remains of the process when one has ended."""
    stop()
    assert told_to_stop()
    signal.send(sender=None)  # type: ignore[attr-defined]

    assert not told_to_stop()
