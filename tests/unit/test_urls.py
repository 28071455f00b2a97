"""URLs whose password was not percent-encoded: what cannot work is told, and no part of it is shown."""

from __future__ import annotations

import traceback

import pytest
from celery import Celery

from celery_sql_results import SettingError
from celery_sql_results.urls import checked_url
from support import app_on

#: SQLAlchemy ends a password at its first "@", and takes what follows for a host, a port, a database or options.
UNESCAPED = [
    "postgresql+psycopg://shop:erste@second@host/db",
    "postgresql+psycopg://shop:erste@second@host",
    "postgresql+psycopg://shop:erste@sec/ond@host/db",
    "postgresql+psycopg://shop:erste@sec?ond@host/db",
    "postgresql+psycopg://shop:erste@sec#ond@host:5432/db",
    "postgresql+psycopg://shop:erste@sec:ond@host/db",
    "postgresql+psycopg://shop:erste@sec/ond@host",
    "postgresql+psycopg://shop:erste@sec?r=ond@host/db",
    "postgresql+psycopg://shop:erste@sec?r=ond@host",
    "postgresql+psycopg://shop:erste@sec?r=on/ond@host/db",
    "postgresql+psycopg://shop:erste@sec/x?r=ond@host/db",
    "mysql+pymysql://shop:erste@sec/x?a=b&r=ond@host/db?charset=utf8mb4",
    "mysql+pymysql://shop:erste@@second@host/db?charset=utf8mb4",
    "mysql+pymysql://shop:erste@second%@host:3306/db",
]


def app_of(settings: dict[str, str]) -> Celery:
    app = Celery("tests", broker="memory://", set_as_current=False)
    app.conf.update(settings)
    return app


@pytest.mark.parametrize("setting", ["result_backend", "database_listen_url"])
@pytest.mark.parametrize("url", UNESCAPED)
def test_what_cannot_work_is_told(url: str, setting: str) -> None:
    with pytest.raises(SettingError) as told:
        _ = app_of({"result_backend": "sql+sqlite://", setting: f"sql+{url}"}).backend
    shown = "".join(traceback.format_exception(told.value))

    assert str(told.value).startswith(f"{setting} is ")
    assert str(told.value).endswith("in its user and password, each @ : / # ? % is written %40 %3A %2F %23 %3F %25")
    assert [part for part in ("erste", "second@", "sec@", "ond@") if part in shown] == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://shop:erste%40second%2Fthird@host/db",
        "postgresql+psycopg://shop:erste/second@host/db",
        "postgresql+psycopg://shop:erste#sec?ond:third@host/db",
        "postgresql+psycopg://shop@tenant:secret@host/db",
        "postgresql+psycopg://shop@host/db@tenant",
        "postgresql+psycopg://shop:secret@host/db%40tenant",
        "postgresql+psycopg://shop:secret@host/db?user=shop@tenant",
        "postgresql+psycopg://shop:secret@host/db?sslrootcert=/srv/a@b/ca.pem&application_name=a@b",
        "postgresql+psycopg://shop:secret@/db?host=/srv/a@b/run",
        "postgresql+psycopg://shop:secret@host?application_name=a%40b",
        "sqlite:///file:/srv/a:b@c/results.db?mode=ro&uri=true",
        "postgresql+psycopg://shop@/db?host=/run/postgresql&user=shop@tenant",
        "postgresql+psycopg://shop:secret@host/db?options=-csearch_path%3Da@b",
        "sqlite:////srv/a@b/results.db",
    ],
)
def test_what_works_is_taken(url: str) -> None:
    """SQLAlchemy wants no more than an encoded "@"."""
    assert checked_url("result_backend", f"sql+{url}") == url


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://shop:erste/sec@host:1/db", "mysql+pymysql://shop:a%zz@host:1/db"]
)
def test_what_is_shown_of_one_that_works(url: str) -> None:
    backend = app_on(url, database_create_tables_at_setup=False).backend
    shown = f"{backend!r} {backend.as_uri()} {backend.settings!r}"

    assert [part for part in ("erste", "sec@", "%zz", "zz") if part in shown] == []
