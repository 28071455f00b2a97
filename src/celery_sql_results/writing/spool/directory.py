"""The files of a spool: one for each entry, readable by their owner only, durable when they have their name."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import NamedTuple

from celery_sql_results.boundaries import undone
from celery_sql_results.errors import SettingError

from .files import Unreadable
from .place import Place, Unsafe

__all__ = ["Directory", "Full", "Sibling"]

SETTING = "database_spool_dir"
#: What the names of files end with: an entry, one that is being written, one that cannot be stored.
ENTRY, DRAFT, REJECTED = ".json", ".draft", ".rejected"
#: Seconds for which the size of the directory is known, but for what this process adds: others write there as well.
MEASURED_FOR = 10.0
#: Seconds after which a draft is what a process left behind that died, and an entry one that nobody stores.
ABANDONED_AFTER = 3600.0
#: The file that tells people whose the directory is.
NOTE = "database.txt"
#: The directory is measured at most for one part in so many of the time.
SHARE = 10


class Sibling(NamedTuple):
    """Another spool that nobody empties: whose it is, how many entries wait, and since when."""

    path: Path
    owner: str
    entries: int
    since: datetime


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
        self._used, self._measured, self._took = 0, -MEASURED_FOR, 0.0
        try:
            self._place = Place(self.path.parent, self.path.name)
        except Unsafe as error:
            raise SettingError(SETTING, os.path.realpath(error.path), error.needed) from None
        except OSError as error:
            needed = f"a directory, or a path where one can be made ({error})"
            raise SettingError(SETTING, os.path.realpath(root), needed) from None

    def names(self) -> list[str]:
        """The entries, oldest first."""
        return sorted(file.name for file in self._files() if file.name.endswith(ENTRY))

    def rejected(self) -> list[str]:
        """The entries that were put aside because they can never be stored, oldest first."""
        return sorted(file.name for file in self._files() if file.name.endswith(REJECTED))

    def since(self, name: str) -> datetime:
        """When an entry was kept.

        Raises:
            FileNotFoundError: it is no longer there.
        """
        found = os.stat(name, dir_fd=self._place.held().descriptor, follow_symlinks=False)
        return datetime.fromtimestamp(found.st_mtime, timezone.utc)

    def add(self, data: bytes) -> None:
        """Keep an entry. When this has returned, it survives a crash of the machine.

        Raises:
            Full: there is no room.
            OSError: the disk is full, or the like.
        """
        if self._is_full_for(len(data)):
            raise Full
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._count)}"
        held = self._place.held()
        with undone(lambda: _remove(name + DRAFT, held.descriptor)):
            _write(name + DRAFT, held.descriptor, data)
            os.rename(name + DRAFT, name + ENTRY, src_dir_fd=held.descriptor, dst_dir_fd=held.descriptor)
        os.fsync(held.descriptor)
        self._used += len(data)

    def used(self) -> int:
        """The size of all files in bytes, those that were rejected included. What will never be finished is removed."""
        if time.monotonic() - self._measured > MEASURED_FOR:
            self._measure()
        return self._used

    def _measure(self) -> None:
        began = time.monotonic()
        self._used, self._measured = sum(self._sizes()), began
        self._took = time.monotonic() - began

    def _is_full_for(self, size: int) -> bool:
        """Whether there is no room. Others may have made some: that is looked at for a tenth of the time at most."""
        if self.used() + size > self.max_bytes and time.monotonic() - self._measured > SHARE * self._took:
            self._measure()
        return self._used + size > self.max_bytes

    def note(self, owner: str) -> None:
        """Let those who look at the directory know whose it is."""
        with suppress(OSError):  # it informs, and is written anew by the next process
            held = self._place.held()
            how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with open(os.open(NOTE, how, 0o600, dir_fd=held.descriptor), "w") as file:
                file.write(f"{owner}\n")

    def siblings(self, age: float = ABANDONED_AFTER) -> Iterator[Sibling]:
        """The spools of others in the same place that have an entry which is so many seconds old at least.

        By default, those that nobody empties.
        """
        for path in sorted(self.path.parent.iterdir()):
            if path.name != self.path.name and path.is_dir() and not path.is_symlink():
                with suppress(OSError):  # another user's, or gone
                    yield from _sibling(path, age)

    def read(self, name: str) -> bytes:
        """The content of an entry.

        Raises:
            FileNotFoundError: it is no longer there.
            Unreadable: it is no file, but a link to something else, or a pipe that would never end; or another user's.
            OSError: it cannot be read for now.
        """
        held = self._place.held()
        if not stat.S_ISREG(os.stat(name, dir_fd=held.descriptor, follow_symlinks=False).st_mode):
            raise Unreadable("it is not a file")
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=held.descriptor), "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                raise Unreadable("it belongs to another user")
            return file.read()

    def remove(self, name: str) -> None:
        """The entry is stored."""
        _remove(name, self._place.held().descriptor)

    def reject(self, name: str) -> Path:
        """The entry can never be stored: put it aside for an operator, and return where it is."""
        held = self._place.held()
        os.rename(name, name + REJECTED, src_dir_fd=held.descriptor, dst_dir_fd=held.descriptor)
        return self.path / (name + REJECTED)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this is, for the length of the block, the only one in all processes that replays."""
        how = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(".lock", how, 0o600, dir_fd=self._place.held().descriptor)
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

    def _files(self) -> Iterator[os.DirEntry[str]]:
        """What is there. By a descriptor of its own: two that share one share how far they have read."""
        held = self._place.held()
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=held.descriptor)
        try:
            yield from os.scandir(descriptor)
        finally:
            os.close(descriptor)

    def _sizes(self) -> Iterator[int]:
        abandoned = time.time() - ABANDONED_AFTER
        for file in self._files():
            with suppress(OSError):
                found = file.stat(follow_symlinks=False)
                if file.name == NOTE:
                    continue
                if file.name.endswith(DRAFT) and found.st_mtime < abandoned:
                    _remove(file.name, self._place.held().descriptor)
                else:
                    yield found.st_size


def _sibling(path: Path, age: float) -> Iterator[Sibling]:
    times = [file.lstat().st_mtime for file in path.iterdir() if file.name.endswith(ENTRY)]
    if times and min(times) <= time.time() - age:
        owner = "a database that is not known"
        how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError, UnicodeDecodeError), open(os.open(path / NOTE, how), "rb") as file:
            owner = file.read(500).decode().strip()
        yield Sibling(path, owner, len(times), datetime.fromtimestamp(min(times), timezone.utc))


def _write(name: str, place: int, data: bytes) -> None:
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(name, how, 0o600, dir_fd=place)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _remove(name: str, place: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=place)
