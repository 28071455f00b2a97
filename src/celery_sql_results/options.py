"""The options of ``create_engine``: what ``None`` stands for, which kind each must be, and the error over a wrong one.

What is wrong may be a password. So no value is shown, only the name of its option and its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any

from sqlalchemy import create_engine, pool
from sqlalchemy.engine import URL, Engine, make_url

from .boundaries import caught
from .errors import Described, SettingError
from .foreign import shown

__all__ = ["ENGINE_OPTIONS", "layered", "made"]

SETTING = "database_engine_options"
#: What a connection pool does unless the setting says otherwise.
ENGINE_OPTIONS: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": 3600}
#: The options of ``create_engine`` that somebody may have meant:
#: https://docs.sqlalchemy.org/en/20/core/engines.html#sqlalchemy.create_engine
KNOWN_OPTIONS = (
    *("connect_args", "creator", "echo", "echo_pool", "enable_from_linting", "execution_options", "hide_parameters"),
    *("insertmanyvalues_page_size", "isolation_level", "json_deserializer", "json_serializer", "label_length"),
    *("logging_name", "max_identifier_length", "max_overflow", "module", "paramstyle", "pool", "pool_logging_name"),
    *("pool_pre_ping", "pool_recycle", "pool_reset_on_return", "pool_size", "pool_timeout", "pool_use_lifo"),
    *("poolclass", "plugins", "query_cache_size", "skip_autocommit_rollback", "use_insertmanyvalues"),
)
#: What each must be that SQLAlchemy takes as it is, to fail over it later, or in words that do not name it.
KINDS: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("a dict", Mapping, ("connect_args", "execution_options")),
    ("a number", (int, float), ("pool_recycle", "pool_timeout")),
    ("a whole number", int, ("pool_size", "max_overflow", "query_cache_size", "insertmanyvalues_page_size")),
    ("a whole number", int, ("label_length", "max_identifier_length")),
    ("a callable", Callable, ("creator", "json_serializer", "json_deserializer")),
    ("a class", type, ("poolclass",)),
    ("a pool of SQLAlchemy", pool.Pool, ("pool",)),
)
#: What PEP 249 calls the ways to write parameters, and one of SQLAlchemy's own.
STYLES = ("format", "named", "numeric", "numeric_dollar", "pyformat", "qmark")
#: ``None`` is a value of its own there.
OWN_NONE = "pool_reset_on_return"


def layered(*layers: Mapping[str, Any], setting: str = SETTING) -> dict[str, Any]:
    """Our defaults, with options on top, as they stand in ``setting``; ``None`` stands for the default.

    Raises:
        SettingError: an option is of another kind than it must be.
    """
    options = dict(ENGINE_OPTIONS)
    for layer in layers:
        options.update((name, value) for name, value in layer.items() if value is not None or name == OWN_NONE)
    for needed, kind, names in KINDS:
        for name in names:
            if name in options and not isinstance(options[name], kind):
                found = Described(f"a dict whose {name!r} is a {type(options[name]).__name__}")
                raise SettingError(setting, found, f"a dict whose {name!r} is {needed}")
    if options.get("paramstyle", STYLES[0]) not in STYLES:
        found = Described("a dict with another 'paramstyle' (not shown)")
        raise SettingError(setting, found, f"a dict whose 'paramstyle' is one of {', '.join(STYLES)}")
    return options


def made(url: str, options: Mapping[str, Any], origin: str) -> Engine:
    """The engine of a URL that was checked, and that the user has written into ``origin``.

    Raises:
        SettingError: an option is wrong, or one in the query of the URL.
    """
    with caught() as failure:  # SQLAlchemy does not check most of them: whatever it trips over is raised
        return create_engine(url, **options)
    text = str(failure.error)
    words = f"as SQLAlchemy and the driver know them: {type(failure.error).__name__}: {shown(text)}"
    parsed = make_url(url)
    if parsed.query and _works(parsed.set(query={}), options):
        found = Described(f"a URL{_named(_told(parsed.query, text))}")
        raise SettingError(origin, found, f"one with options in its query {words}")
    told = _told(options, text)
    near = [each for name in told if name not in KNOWN_OPTIONS for each in get_close_matches(name, KNOWN_OPTIONS, 1)]
    needed = f"such as {', '.join(map(repr, near))}" if near else words
    raise SettingError(SETTING, Described(f"a dict{_named(told)}"), f"a dict of options of create_engine, {needed}")


def _works(url: URL, options: Mapping[str, Any]) -> bool:
    with caught() as failure:
        create_engine(url, **options)
    return failure.error is None


def _told(options: Mapping[str, Any], text: str) -> list[str]:
    """The options that an error tells of: by name, else by value."""
    return [name for name in options if f"'{name}'" in text] or [
        name for name, value in options.items() if isinstance(value, str) and repr(value) in text
    ]


def _named(names: Collection[str]) -> str:
    return f" with {', '.join(map(repr, names))}" if names else " (not shown)"
