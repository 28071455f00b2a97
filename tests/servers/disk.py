"""A disk of its own for a test, so small that it can be filled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from servers.process import Missing

REMEDY = "Mounting needs root, or sudo without a password, outside of a container that forbids it."
#: Bytes that are written at once to fill a disk; the last piece is written in part.
PIECE = 2**20


def _as_root(*command: str) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    try:
        subprocess.run([*sudo, *command], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"{command[0]} failed: {getattr(error, 'stderr', '') or error} {REMEDY}") from error


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[None]:
    """A tmpfs over a folder, with the same owner, for the length of the block.

    Raises:
        Missing: it cannot be mounted here.
    """
    owner = folder.stat()
    options = f"size={megabytes}m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    _as_root("mount", "-t", "tmpfs", "-o", options, "small-disk", str(folder))
    try:
        yield
    finally:
        _as_root("umount", "--lazy", str(folder))  # a server that is still ending may hold a file


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Somebody else's file takes all that is left on the disk, for the length of the block."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(PIECE))
    try:
        yield
    finally:
        ballast.unlink()
