"""An entry of Django's DATABASES becomes a URL and arguments of a driver."""

from __future__ import annotations

import sys
from typing import Any

import pymysql
import pytest
from sqlalchemy.engine import make_url

from celery_sql_results import SettingError
from celery_sql_results.aliases import place_of
from celery_sql_results.dialects.django import as_sqlalchemy

#: Kind, entry, URL, arguments.
CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    (
        "postgresql",
        {
            "NAME": "shop",
            "USER": "u",
            "PASSWORD": "a@b:c/d",
            "HOST": "db",
            "PORT": "5433",
            "OPTIONS": {"sslmode": "require"},
        },
        "postgresql+psycopg://u:a%40b%3Ac%2Fd@db:5433/shop",
        {"sslmode": "require", "prepare_threshold": None},
    ),
    (
        "postgresql",
        {"NAME": "shop", "HOST": "/run/postgresql", "PORT": 5433, "OPTIONS": {"pool": True, "isolation_level": 4}},
        "postgresql+psycopg:///shop",
        {"host": "/run/postgresql", "port": 5433, "prepare_threshold": None},
    ),
    (
        "postgresql",
        {"NAME": "shop", "HOST": "one,two", "PORT": "1,2", "OPTIONS": {"prepare_threshold": 5}},
        "postgresql+psycopg:///shop",
        {"host": "one,two", "port": "1,2", "prepare_threshold": 5},
    ),
    (
        "postgresql",
        {"NAME": "", "OPTIONS": {"service": "shop", "assume_role": "the owner", "options": "-c a=b"}},
        "postgresql+psycopg://",
        {"service": "shop", "options": "-c a=b -c role=the\\ owner", "prepare_threshold": None},
    ),
    (
        "mysql",
        {
            "NAME": "shop",
            "USER": "u",
            "HOST": "db",
            "PORT": "3307",
            "OPTIONS": {"isolation_level": None, "ssl": {"ca": "c"}},
        },
        "mysql+pymysql://u@db:3307/shop",
        {"charset": "utf8mb4", "ssl": {"ca": "c"}},
    ),
    (
        "mysql",
        {"NAME": "shop", "USER": "u", "HOST": "/run/mysqld.sock", "OPTIONS": {"charset": "utf8mb3"}},
        "mysql+pymysql://u@/shop?unix_socket=%2Frun%2Fmysqld.sock",
        {"charset": "utf8mb3"},
    ),
    (
        "sqlite",
        {"NAME": "/srv/shop.db", "OPTIONS": {"timeout": 9, "init_command": "-"}},
        "sqlite:////srv/shop.db",
        {"timeout": 9},
    ),
    ("sqlite", {"NAME": "file:/srv/shop.db?mode=ro"}, "sqlite:///file:/srv/shop.db?mode=ro&uri=true", {}),
    ("sqlite", {"NAME": "file:memorydb_default?mode=memory&cache=shared"}, "sqlite://", {}),
    ("sqlite", {"NAME": ":memory:"}, "sqlite://", {}),
]


@pytest.mark.parametrize(("vendor", "entry", "url", "arguments"), CASES)
def test_an_entry(
    vendor: str, entry: dict[str, Any], url: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PyMySQL in the place of mysqlclient, as its `install_as_MySQLdb` puts it there."""
    monkeypatch.setitem(sys.modules, "MySQLdb", pymysql)
    found, given = as_sqlalchemy(vendor, entry)

    assert (make_url(found.render_as_string(hide_password=False)), given) == (make_url(url), arguments)


def test_the_driver_is_the_first_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Django's order."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    found, given = as_sqlalchemy("postgresql", {"NAME": "shop"})

    assert (str(found), given) == ("postgresql+psycopg2:///shop", {})


def test_without_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is named, and not a module that is missing."""
    monkeypatch.setitem(sys.modules, "django.conf", None)
    with pytest.raises(SettingError) as raised:
        place_of("result_backend", "sql+django://default")

    assert str(raised.value) == (
        "result_backend is the alias 'default', but it must be one of Django, which is not installed here"
    )
