"""What is said where a driver does not even try to connect: it trips over what it was given.

Its error is none of a database. A misspelt option is a ``TypeError`` or an ``AttributeError``, a certificate that is
not there a ``FileNotFoundError``: each driver has its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.engine import URL, Engine

from .boundaries import caught
from .errors import DatabaseUnusable, bare
from .foreign import named, shown
from .writing import describe

__all__ = ["ARGUMENTS", "cannot_connect", "misconnected"]

#: What drivers raise over what they were given. A network fails in other ways.
ARGUMENTS = (
    *(TypeError, AttributeError, ValueError, LookupError, OverflowError),
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
)
NEEDED = "a path, options and values that the driver takes, in the URL and in connect_args of database_engine_options"
#: Names of options that hold a password, and what a driver quotes.
SECRET, QUOTED = re.compile("pass|pwd|secret|token", re.IGNORECASE), re.compile(r"'([^']*)'")


def cannot_connect(engine: Engine, error: BaseException) -> bool:
    """Whether an error is that of opening a connection: then opening another one ends with the same."""
    with caught() as failure:
        engine.connect().close()
    return type(failure.error) is type(error)


def misconnected(
    error: BaseException, origin: str, url: URL, arguments: Mapping[str, Any], keeps_way: bool
) -> DatabaseUnusable:
    """Which setting is wrong, in the words of the driver, without a password. Its cause is the driver's error.

    Args:
        error: what the driver has raised.
        origin: what the user has written the URL into.
        url: the URL.
        arguments: the ``connect_args`` that he has set.
        keeps_way: whether the way of the error is shown too, as it may lead through code of his.
    """
    secrets, words = list(_secrets(url, arguments)), describe(error)
    for secret in secrets:
        words = words.replace(secret, "***")
    in_url, in_arguments = _told(url.query), _told(arguments)
    first = next((each for each in QUOTED.findall(words) if each in in_url | in_arguments), None)
    subject = f"{origin} is {named(url)}, which"
    if first in in_arguments - in_url:
        subject = f"database_engine_options has connect_args with which {named(url)}"
    told = DatabaseUnusable(f"{subject} cannot be used ({shown(words)}). Needed: {NEEDED}")
    if not any(secret in str(error) for secret in secrets):
        told.__cause__ = error if keeps_way else bare(error)
    return told


def _told(options: Mapping[str, Any]) -> set[str]:
    """What a driver may quote of options: names and values."""
    return {*options, *map(str, options.values())}


def _secrets(url: URL, arguments: Mapping[str, Any]) -> Iterator[str]:
    options = [*url.query.items(), *arguments.items(), ("password", url.password)]
    return (value for name, value in options if SECRET.search(name) and isinstance(value, str) and value)
