"""Options of the engine that are none, or of a kind that they cannot be: one error at the start, without the value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import states
from sqlalchemy.pool import NullPool

from celery_sql_results import SessionManager, SettingError
from celery_sql_results.options import layered
from support import app_on

#: Those whose default SQLAlchemy has, or this package.
DEFAULTS = (
    *("connect_args", "creator", "echo", "execution_options", "json_serializer", "label_length", "logging_name"),
    *("max_identifier_length", "max_overflow", "module", "paramstyle", "pool", "pool_pre_ping", "pool_recycle"),
    *("pool_size", "pool_timeout", "pool_use_lifo", "poolclass", "plugins", "query_cache_size"),
)


@pytest.mark.parametrize("name", DEFAULTS)
def test_none_is_the_default(name: str, tmp_path: Path) -> None:
    backend = app_on(f"sqlite:///{tmp_path}/results.db", database_engine_options={name: None}).backend
    backend.store_result("t", 1, states.SUCCESS)

    assert backend.get_result("t") == 1
    assert backend.engine_options == {"pool_pre_ping": True, "pool_recycle": 3600}


def test_none_of_a_caller_leaves_the_setting(tmp_path: Path) -> None:
    """As of any setting."""
    assert layered({"pool_size": 2}, {"pool_size": None})["pool_size"] == 2


def test_none_that_means_something() -> None:
    """SQLAlchemy's documentation says: no reset."""
    assert layered({"pool_reset_on_return": None})["pool_reset_on_return"] is None


def test_a_manager_takes_none_as_well(tmp_path: Path) -> None:
    manager, url = SessionManager(), f"sqlite:///{tmp_path}/results.db"

    assert manager.get_engine(url, connect_args=None, pool_recycle=None) is manager.get_engine(url)


WRONG: list[tuple[str, Any, str]] = [
    ("connect_args", "password=secret", "a dict"),
    ("connect_args", [("password", "secret")], "a dict"),
    ("execution_options", "secret", "a dict"),
    ("pool_recycle", "secret", "a number"),
    ("pool_timeout", "secret", "a number"),
    ("pool_size", 1.5, "a whole number"),
    ("max_overflow", "secret", "a whole number"),
    ("query_cache_size", "secret", "a whole number"),
    ("label_length", "secret", "a whole number"),
    ("max_identifier_length", "secret", "a whole number"),
    ("creator", "secret", "a callable"),
    ("json_serializer", "secret", "a callable"),
    ("poolclass", "NullPool", "a class"),
    ("pool", "NullPool", "a pool of SQLAlchemy"),
    ("pool", NullPool, "a pool of SQLAlchemy"),
]


@pytest.mark.parametrize("prefix", ["", "CELERY_"])
@pytest.mark.parametrize(("name", "value", "needed"), WRONG)
def test_another_kind(name: str, value: Any, needed: str, prefix: str) -> None:
    app = app_on("sqlite://")
    setting = f"{prefix}DATABASE_ENGINE_OPTIONS" if prefix else "database_engine_options"
    app.config_from_object(
        {f"{prefix}RESULT_BACKEND" if prefix else "result_backend": "sql+sqlite://", setting: {name: value}},
        namespace=prefix.rstrip("_") or None,
    )
    found = f"{setting} is a dict whose {name!r} is a {type(value).__name__}"
    with pytest.raises(SettingError) as told:
        _ = app.backend

    assert str(told.value) == f"{found}, but it must be a dict whose {name!r} is {needed}"


@pytest.mark.parametrize(
    ("options", "named", "words"),
    [
        ({"echo": "x"}, "'echo'", "KeyError: 'x'"),
        ({"module": "psycopg"}, None, "AttributeError: 'str' object has no attribute "),
        ({"poolclass": dict}, None, "Error: "),
        ({"pool_reset_on_return": "x"}, "'pool_reset_on_return'", "ArgumentError: "),
    ],
)
def test_what_sqlalchemy_trips_over(options: dict[str, Any], named: str | None, words: str) -> None:
    """Whatever it raises: the error has its words, and the option where these tell it."""
    found = f"a dict with {named}" if named else "a dict (not shown)"
    with pytest.raises(SettingError) as told:
        SessionManager().get_engine("sqlite://", **options)

    assert str(told.value).startswith(f"database_engine_options is {found}, but it must be a dict of options of ")
    assert words in str(told.value)
    assert told.value.__context__ is None


def test_a_style_of_parameters_that_there_is_not() -> None:
    """SQLAlchemy looks for it when it compiles the first statement."""
    with pytest.raises(SettingError, match=r"'paramstyle' is one of format, named, numeric, "):
        _ = app_on("sqlite://", database_engine_options={"paramstyle": "secret"}).backend
