"""Ends a server and removes its folder when the process that started it dies without doing so itself.

Run as a script by `process.Home`: `python guard.py <process id to watch> <folder>`. What belongs to the server is
whatever process works inside the folder: that covers children and installers, and no identifier can be stale.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Seconds that a server has to end by itself (and to give back its shared memory) before it is killed.
GRACE = 5.0
#: Seconds between two looks at whether it has ended.
TICK = 0.01


def inhabitants(folder: Path) -> Iterator[int]:
    """The identifiers of all processes that work inside `folder`, or were told of it (Linux; elsewhere none).

    Some servers go elsewhere to work, so their arguments tell; those of guards do not count.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            told = (process / "cmdline").read_bytes().split(b"\0")
            is_told = os.fsencode(folder) in told and os.fsencode(__file__) not in told
            if is_told or (process / "cwd").readlink().is_relative_to(folder):
                yield int(process.name)


def signal_all(folder: Path, number: int) -> int:
    """Send a signal to all inhabitants and return how many there were."""
    identifiers = list(inhabitants(folder))
    for identifier in identifiers:
        with suppress(ProcessLookupError):
            os.kill(identifier, number)
    return len(identifiers)


def evict(folder: Path, grace: float = 0.0) -> None:
    """Return when nobody lives in `folder` any more; after `grace` seconds by force."""
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        if not list(inhabitants(folder)):
            return
        time.sleep(TICK)
    while signal_all(folder, signal.SIGKILL):
        time.sleep(TICK)


def await_death(parent: int) -> None:
    """Block until process `parent` has ended, or standard input has (which a fork may hold open for longer)."""
    watched: list[int] = [0]
    with suppress(AttributeError, OSError):  # not Linux, or gone already: then standard input tells
        watched.append(os.pidfd_open(parent))
    select.select(watched, [], [])


def main(parent: int, folder: Path) -> None:
    """Wait for the death of `parent`, then leave nothing behind."""
    await_death(parent)
    signal_all(folder, signal.SIGQUIT)
    evict(folder, GRACE)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
