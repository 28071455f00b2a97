"""A directory in which nobody else can put anything: made, checked up to the root, and held open.

Whoever may write to a directory above may put another in its place. So each one above is checked, what is done in the
directory is done by a descriptor of it, and what has come in its place meanwhile is checked like the first.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["Place", "Unsafe"]

#: Links that are followed on the way to a directory, as by Linux.
LINKS = 40


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
    """A directory of this process's user in another one of his.

    Args:
        root: the other one; with those above it, it is made if it is not there.
        name: how the directory is called in there.

    Raises:
        OSError: it cannot be made, or is not safe.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / name
        self._held = _opened(self.path)

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
    root = path.parent
    _check_way(next(each for each in root.parents if each.exists()) / root.name)
    _make(root)
    _check_way(root)
    _check(root, root.stat())
    _make(path)
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
        advice = _advice(path, found, f"chown {user}")
        raise Unsafe(path, f"a directory that belongs to the user of this process: {advice}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        advice = _advice(path, found, "chmod go-w")
        raise Unsafe(path, f"a directory to which nobody but its owner may write: {advice}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise Unsafe(path, "a directory that this process may read and write")


def _advice(path: Path, found: os.stat_result, command: str) -> str:
    """What to run, only where that can do no harm: what others use, such as ``/tmp``, is left as it is."""
    is_own = found.st_uid == os.geteuid() != 0  # all that is of the system is root's
    is_empty = os.access(path, os.R_OK) and not any(path.iterdir())
    if found.st_mode & stat.S_ISVTX or not (is_own or is_empty):
        return "use a directory of its own"
    return f"{command} {path.resolve()}, or use another directory"


def _check_way(path: Path) -> None:
    for above, entry in _way(path):
        _check_above(path, above, entry)


def _way(path: Path) -> Iterator[tuple[Path, Path]]:
    """Each directory that is passed on the way to a path, links and those that they lead through included.

    Each with the entry that is taken in it.
    """
    here, left, links = Path("/"), list(reversed(path.parts[1:])), 0
    while left:
        entry = here / left.pop()
        yield here, entry
        if entry.is_symlink() and links < LINKS:
            links += 1
            target = Path(os.readlink(entry))
            left += reversed(target.parts)
        elif entry.name == "..":
            here = here.parent
        else:
            here = entry if entry.name != entry.anchor else Path("/")


def _check_above(path: Path, above: Path, entry: Path) -> None:
    """Nobody but root and this user may put something else in the place of an entry of a directory above."""
    trusted, found = {0, os.geteuid()}, above.stat()
    if found.st_uid not in trusted:
        raise Unsafe(path, f"in a directory of root or of the user of this process: {above} belongs to another")
    shared = stat.S_IWOTH if _is_own_group(found.st_gid) else stat.S_IWGRP | stat.S_IWOTH
    if not found.st_mode & shared:
        return
    if not found.st_mode & stat.S_ISVTX:
        raise Unsafe(path, f"safe while others may write to {above}: {_advice(above, found, 'chmod go-w')}")
    with suppress(FileNotFoundError):  # it is to be made
        if entry.lstat().st_uid not in trusted:
            raise Unsafe(path, f"reached by what is of root or of the user of this process: {entry} is another's")


def _is_own_group(group: int) -> bool:
    """Whether it is the group that many systems give to each user, by his name, of which nobody else is a member."""
    if group != os.getegid():
        return False
    try:
        found, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a number without a name, as in a container
        return True
    return found.gr_name == user and set(found.gr_mem) <= {user}
