"""How a server's processes are run: as whom, where, and never for longer than the process that wants them."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from servers import guard

#: Ports to choose from: below those that systems give to outgoing connections (Linux: from 32768).
PORTS = (10_000, 32_000)


class Missing(Exception):
    """The programs of a server are not installed; the message says what to install."""


def find(program: str, remedy: str) -> str:
    """The path of `program`, also where only administrators look.

    Raises:
        Missing: it is not installed; `remedy` says how to get it.
    """
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/usr/libexec")
    if path is None:
        raise Missing(f"{program} was not found. {remedy}")
    return path


def free_port() -> int:
    """A TCP port of loopback that nobody listens on, and that no outgoing connection takes while a server is down."""
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def make_traversable(path: Path) -> None:
    """Let everyone pass (not list) the folders above `path`, so that an unprivileged server reaches it."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)


def make_usable(*folders: Path) -> None:
    """Let everyone read the programs in some folders, which an installation by root may have kept for root."""
    for folder in folders:
        make_traversable(folder)
        if folder.stat().st_mode & 0o005 != 0o005:
            subprocess.run(["chmod", "-R", "o+rX", folder], check=True)


class Home:
    """A temporary folder and whatever runs in it.

    Servers refuse to run as root: started by root, they run as the system user `account`, who then owns the folder.
    """

    def __init__(self, kind: str, account: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{kind}-")).resolve()
        self._identity = self._take_identity(account) if os.geteuid() == 0 else {}
        self._guard = self._start_guard()

    def _take_identity(self, account: str) -> dict[str, Any]:
        user = pwd.getpwnam(account)
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        make_traversable(self.folder)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _start_guard(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(self.folder)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", start_new_session=True)

    def write(self, name: str, text: str) -> Path:
        """Write a file that the server may read."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    def run(self, command: Sequence[str]) -> None:
        """Run an installer to its end.

        Raises:
            RuntimeError: it failed; the message holds what it said.
        """
        ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=self.folder, **self._identity)
        if ended.returncode:
            raise RuntimeError(f"{command[0]} ended with {ended.returncode}: {ended.stdout}{ended.stderr}")

    def certify(self, host: str) -> tuple[Path, Path]:
        """Make a certificate that nobody but itself vouches for, and its key."""
        certificate, key = self.folder / "certificate", self.folder / "key"
        request = [find("openssl", "apt-get install openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
        subject = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{host}"]
        self.run([*request, *subject, "-keyout", str(key), "-out", str(certificate)])
        return certificate, key

    def spawn(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a server whose output is appended to `log`; a Ctrl-C in the terminal does not reach it."""
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
                **self._identity,
            )

    def remove(self) -> None:
        """End whatever still runs here and remove the folder."""
        guard.evict(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._guard.kill()
        self._guard.communicate()
