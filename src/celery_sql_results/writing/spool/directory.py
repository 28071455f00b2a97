"""The files of a spool: one for each entry, readable by their owner only, durable when they have their name."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import count
from pathlib import Path

from celery_sql_results.boundaries import undone
from celery_sql_results.errors import SettingError

from .files import Unreadable

__all__ = ["Directory", "Full"]

SETTING = "database_spool_dir"
#: What the names of files end with: an entry, one that is being written, one that cannot be stored.
ENTRY, DRAFT, REJECTED = ".json", ".draft", ".rejected"
#: Seconds for which the size of the directory is known, but for what this process adds: others write there as well.
MEASURED_FOR = 10.0
#: Seconds after which a draft is what a process left behind that died.
ABANDONED_AFTER = 3600.0


class Full(OSError):
    """The entry would make the spool larger than it may be."""


class Directory:
    """The spool of one database and set of tables.

    Args:
        root: the directory that was set; it is created if it is not there.
        owner: what the entries belong to; each owner has a directory of its own in there.
        max_bytes: how large that may become.

    Raises:
        SettingError: there is no such directory and none can be made, it is another user's, or others may write to it.
    """

    def __init__(self, root: str, owner: object, max_bytes: float) -> None:
        self.path = Path(root) / sha256(repr(owner).encode()).hexdigest()[:16]
        self.max_bytes = max_bytes
        self._count = count()
        self._used, self._measured = 0, -MEASURED_FOR
        _prepare(Path(root))
        _prepare(self.path)

    def names(self) -> list[str]:
        """The entries, oldest first."""
        with suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self.path) if name.endswith(ENTRY))
        return []

    def add(self, data: bytes) -> None:
        """Keep an entry. When this has returned, it survives a crash of the machine.

        Raises:
            Full: there is no room.
            OSError: the disk is full, or the like.
        """
        if self.used() + len(data) > self.max_bytes:
            raise Full
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._count)}"
        draft = self.path / (name + DRAFT)
        with undone(lambda: draft.unlink(missing_ok=True)):
            _write(draft, data)
            draft.rename(self.path / (name + ENTRY))
        self._sync()
        self._used += len(data)

    def used(self) -> int:
        """The size of all files in bytes, those that were rejected included. What will never be finished is removed."""
        now = time.monotonic()
        if now - self._measured > MEASURED_FOR:
            self._used, self._measured = sum(self._sizes()), now
        return self._used

    def read(self, name: str) -> bytes:
        """The content of an entry.

        Raises:
            FileNotFoundError: it is no longer there.
            Unreadable: it is no file, but a link to something else, or a pipe that would never end.
            OSError: it cannot be read for now.
        """
        path = self.path / name
        if not stat.S_ISREG(path.lstat().st_mode):
            raise Unreadable("it is not a file")
        return path.read_bytes()

    def remove(self, name: str) -> None:
        """The entry is stored."""
        (self.path / name).unlink(missing_ok=True)

    def reject(self, name: str) -> Path:
        """The entry can never be stored: put it aside for an operator, and return where it is."""
        return (self.path / name).rename(self.path / (name + REJECTED))

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this is, for the length of the block, the only one in all processes that replays."""
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked meanwhile holds a copy
            os.close(descriptor)

    def _sizes(self) -> Iterator[int]:
        abandoned = time.time() - ABANDONED_AFTER
        for file in os.scandir(self.path):
            with suppress(OSError):
                found = file.stat(follow_symlinks=False)
                if file.name.endswith(DRAFT) and found.st_mtime < abandoned:
                    os.unlink(file)
                else:
                    yield found.st_size

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _prepare(path: Path) -> None:
    """Make a directory that nobody else may write to, or check that it is one."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise SettingError(SETTING, str(path), f"a directory, or a path where one can be made ({error})") from error
    if found.st_uid != os.geteuid():
        needed = f"a directory that belongs to the user of this process: chown {os.geteuid()} {path}"
        raise SettingError(SETTING, str(path), needed)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        needed = f"a directory to which nobody but its owner may write: chmod go-w {path}"
        raise SettingError(SETTING, str(path), needed)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise SettingError(SETTING, str(path), "a directory that this process may read and write")
