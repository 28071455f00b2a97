"""A directory in which nobody else can put anything: made, checked up to the root, and held open.

Whoever may write to a directory above may put another in its place. So each one above is checked, what is done in the
directory is done by a descriptor of it, and what has come in its place meanwhile is checked like the first.
"""

from __future__ import annotations

import grp
import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["Place", "Unsafe"]


class Unsafe(OSError):
    """A directory that cannot be used as it is.

    Attributes:
        path: which.
        needed: what it must be, and how that is brought about.
    """

    def __init__(self, path: Path, needed: str) -> None:
        super().__init__(f"{path} is not {needed}")
        self.path = path
        self.needed = needed


class _Held:
    """A directory that is open."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self.stat = os.fstat(self.descriptor)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):  # it was not opened
            os.close(self.descriptor)


class Place:
    """A directory of this process's user.

    Args:
        path: where it is; with those above it, it is made if it is not there.

    Raises:
        OSError: it cannot be made, or is not safe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = _opened(path)

    def held(self) -> _Held:
        """The directory, open as long as the result is kept; the one that has come in its place, if it is as safe.

        Raises:
            OSError: it is not, or it is gone and cannot be made again.
        """
        held = self._held
        with suppress(OSError):
            if os.path.samestat(os.stat(self.path), held.stat):
                return held
        held = self._held = _opened(self.path)
        return held


def _opened(path: Path) -> _Held:
    _make(path)
    _check_above(path)
    _check_above(path.resolve())
    held = _Held(path)
    _check(path, held.stat)
    return held


def _make(path: Path) -> None:
    """Make what is not there, for nobody else: the mask of a process may allow more."""
    if not path.is_dir():
        _make(path.parent)
        with suppress(FileExistsError):  # by another process, or it is a file
            path.mkdir(mode=0o700)


def _check(path: Path, found: os.stat_result) -> None:
    user = os.geteuid()
    if found.st_uid != user:
        raise Unsafe(path, f"a directory that belongs to the user of this process: chown {user} {path}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unsafe(path, f"a directory to which nobody but its owner may write: chmod go-w {path}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise Unsafe(path, "a directory that this process may read and write")


def _check_above(path: Path) -> None:
    """Nobody but root and this user may put another directory in the place of this one, or of one above."""
    for above in path.parents:
        found = above.stat()
        if found.st_uid not in {0, os.geteuid()}:
            raise Unsafe(path, f"in a directory of root or of the user of this process: {above} belongs to another")
        shared = stat.S_IWOTH if _is_own_group(found.st_gid) else stat.S_IWGRP | stat.S_IWOTH
        if found.st_mode & shared and not found.st_mode & stat.S_ISVTX:
            raise Unsafe(path, f"safe while others may write to {above} (chmod go-w {above}, or chmod +t {above})")


def _is_own_group(group: int) -> bool:
    """Whether it is the group that many systems give to each user, of which nobody else is a member."""
    if group != os.getegid():
        return False
    try:
        return len(grp.getgrgid(group).gr_mem) <= 1
    except KeyError:  # a number without a name, as in a container
        return True
