"""What somebody must change before a connection can succeed: told by those who connect for the first time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

__all__ = ["CERTIFICATE", "CREDENTIALS", "DATABASE", "HOST", "RIGHT", "for_words", "of_file"]

CREDENTIALS = (
    "a user and a password that the server takes; in a URL, each @ : / # ? % in them is written %40 %3A %2F %23 %3F %25"
)
DATABASE = "a database that is there: create it, or name another"
RIGHT = "a role that may connect to this database: grant it that right, or name another"
HOST = "a server that lets this user in from this host, with or without TLS as it wants it"
CERTIFICATE = (
    "options of TLS that fit the server: whether it has a certificate, for which name, and who vouches for it; "
    "they stand in database_engine_options or in the query of the URL"
)


def for_words(told: str, needed: Mapping[str, str]) -> str | None:
    """What is needed after an error that holds some words; ``None`` if it holds none of those that are known."""
    return next((need for words, need in needed.items() if words in told), None)


def of_file(path: str) -> str | None:
    """What is needed to open a database in a file, where that is to be seen."""
    path = os.path.abspath(path)
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        return f"the path of a file: {path} is a directory"
    if not os.path.isdir(folder):
        return f"a directory that is there: create {folder}, or name another"
    return _not_ours([folder, *([path] if os.path.exists(path) else [])])


def _not_ours(paths: Iterable[str]) -> str | None:
    """SQLite writes beside the file as well."""
    closed = next((path for path in paths if not os.access(path, os.W_OK)), None)
    return closed and f"a file and a directory that this process may write to: it may not write to {closed}"
