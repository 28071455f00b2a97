"""The settings that somebody has set, as they may be shown: no password, no secret, whatever is wrong with a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.exceptions import ImproperlyConfigured
from sqlalchemy.engine import make_url

from celery_sql_results.aliases import is_alias
from celery_sql_results.foreign import named, shown
from celery_sql_results.urls import checked_url

__all__ = ["HIDDEN", "effective"]

PREFIXES = ("database_", "result_")
HIDDEN = "(not shown)"
#: What a name holds whose value is nobody's business.
SECRET = ("secret", "pass", "pwd", "key", "token", "creator")
#: Options of engines and drivers: whatever is a text there may be a password.
OPTIONS = "database_engine_options"


def effective(conf: Any) -> dict[str, Any]:
    """The settings of results that are set, by their names, of the configuration of an app."""
    prefix = (getattr(conf, "prefix", None) or "").lower()
    found = {
        str(key).lower().removeprefix(prefix): value
        for key, value in conf.table(with_defaults=False, censored=False).items()
    }
    mine = {name: found[name] for name in sorted(found) if name.startswith(PREFIXES) and _is_set(found[name])}
    return {name: _shown(name, value, name == OPTIONS) for name, value in mine.items()}


def _is_set(value: Any) -> bool:
    return value is not None and not (isinstance(value, Mapping) and all(each is None for each in value.values()))


def _shown(name: str, value: Any, is_option: bool) -> Any:
    if any(word in name.lower() for word in SECRET):
        return HIDDEN
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {shown(key): _shown(str(key), each, is_option) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) and not is_option:
        return [_shown(name, each, False) for each in value]
    if callable(value):
        return shown(getattr(value, "__qualname__", type(value).__qualname__))
    if is_option:
        return HIDDEN
    text = str(value)
    return _url(name, text) if "://" in text or name in ("result_backend", "database_url") else shown(text)


def _url(name: str, text: str) -> str:
    """A URL without password and query; of what is none, or of another kind, no more than the scheme."""
    scheme = text.partition("://")[0]
    if is_alias(text):
        return shown(text)
    if scheme.startswith(("sql+", "db+")) or name != "result_backend":
        try:
            prefix = next((each for each in ("sql+", "db+") if scheme.startswith(each)), "")
            return prefix + named(make_url(checked_url(name, text, loads_driver=False)))
        except ImproperlyConfigured:
            return HIDDEN
    return f"{shown(scheme)}://…" if scheme.replace("+", "").isalnum() else HIDDEN
