"""What a driver does not even try to connect with: one error at the start that names the setting."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states

from celery_sql_results import DatabaseUnusable, SettingError
from faults.test_unwanted import DRIVERS, assert_is_bare, every_driver, refusal, url_of
from servers import Database
from servers.pool import on
from support import app_on

NEEDED = "a path, options and values that the driver takes, in the URL and in connect_args of database_engine_options"
#: An error of libpq over its options is one of a database.
every_driver_but_libpqs, mariadbs_drivers = (
    pytest.mark.parametrize(("database", "driver"), drivers, indirect=["database"])
    for drivers in (
        [(kind, driver) for kind, driver in DRIVERS if driver not in {"psycopg", "psycopg2"}],
        [(kind, driver) for kind, driver in DRIVERS if kind == "mariadb"],
    )
)


@every_driver
def test_a_misspelt_option_in_the_url(database: Database, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """Some drivers have an error of a database for it, which says the same."""
    url = url_of(database, driver)
    told = refusal(f"{url}?chrset=utf8")

    assert str(told).startswith(f"result_backend is {sa.make_url(url)}, which cannot be used (")
    assert "chrset" in str(told)
    assert_is_bare(told.__cause__)
    assert caplog.messages == []


@every_driver_but_libpqs
def test_a_misspelt_option_among_the_arguments(database: Database, driver: str) -> None:
    """Its value is not shown: it may be a password. What is in the URL is not to blame."""
    url = url_of(database, driver)
    told = refusal(url, database_engine_options={"connect_args": {"pasword": "secret"}})
    found = f"database_engine_options has connect_args with which {sa.make_url(url)} cannot be used ("

    assert str(told).startswith(found)
    assert str(told).endswith(f"). Needed: {NEEDED}")
    assert "'pasword'" in str(told)
    assert "secret" not in "".join(traceback.format_exception(told))


@mariadbs_drivers
def test_a_text_for_a_number(database: Database, driver: str) -> None:
    """In the query of the URL, where SQLAlchemy makes numbers of some options of these drivers."""
    with pytest.raises(SettingError) as told:
        _ = app_on(f"{url_of(database, driver)}?connect_timeout=abc").backend

    assert str(told.value) == (
        "result_backend is a URL with 'connect_timeout', but it must be one with options in its query as SQLAlchemy "
        "and the driver know them: ValueError: invalid literal for int() with base 10: 'abc'"
    )


@on("mariadb")
def test_a_certificate_that_is_not_there(database: Database) -> None:
    told = refusal(f"{url_of(database, 'pymysql')}?ssl_ca=/nowhere")

    assert str(told).endswith(f"(FileNotFoundError: [Errno 2] No such file or directory). Needed: {NEEDED}")


SQLITE: list[tuple[str, dict[str, Any], str, str]] = [
    ("sqlite:///{folder}/a\0b.db", {}, "result_backend is ", "ValueError: embedded null byte"),
    ("sqlite:///{folder}/r.db", {"pasword": "secret"}, "database_engine_options has ", "TypeError: "),
    ("sqlite:///{folder}/r.db", {"timeout": "secret"}, "result_backend is ", "TypeError: "),
    ("sqlite:///{folder}/r.db", {"cached_statements": 10**30}, "result_backend is ", "OverflowError: "),
]


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize(("url", "arguments", "beginning", "words"), SQLITE)
def test_a_file(
    url: str, arguments: dict[str, Any], beginning: str, words: str, at_start: bool, tmp_path: Path
) -> None:
    """At the start or at the first use, whichever is first."""
    options = {"connect_args": arguments}
    app = app_on(url.format(folder=tmp_path), database_engine_options=options, database_create_tables_at_setup=at_start)
    with pytest.raises(DatabaseUnusable) as told:
        app.backend.store_result("t", 1, states.SUCCESS)

    assert str(told.value).startswith(beginning)
    assert words in str(told.value)
    assert "secret" not in str(told.value)


def test_a_password_in_the_words_of_a_driver(tmp_path: Path) -> None:
    """Here those of somebody who opens connections himself."""

    password = "hunter2"

    def connect() -> None:
        raise ValueError(f"no such user: 'clerk' with {password!r}, at [a]")

    options = {"creator": connect, "connect_args": {"password": password}}
    with pytest.raises(DatabaseUnusable) as told:
        _ = app_on(f"sqlite:///{tmp_path}/r.db", database_engine_options=options).backend

    assert "(ValueError: no such user: 'clerk' with '***', at [a])" in str(told.value)
    assert f"'clerk' with {password!r}" not in "".join(traceback.format_exception(told.value))


def test_a_fault_in_code_of_the_user(tmp_path: Path) -> None:
    """Its traceback leads there, which that of a driver does not have to."""

    def callback(engine: sa.Engine) -> None:
        def look_for_the_password(*_: object) -> None:
            raise KeyError("PGPASSWORD")

        sa.event.listen(engine, "do_connect", look_for_the_password)

    with pytest.raises(DatabaseUnusable, match=r"\(KeyError: 'PGPASSWORD'\)") as told:
        _ = app_on(f"sqlite:///{tmp_path}/r.db", database_engine_callback=callback).backend

    assert "in look_for_the_password" in "".join(traceback.format_exception(told.value))


def test_an_error_that_is_not_about_connecting(tmp_path: Path) -> None:
    """What goes wrong after a connection is another's, and is raised as it is."""

    def callback(engine: sa.Engine) -> None:
        def fail(*_: object) -> None:
            raise ValueError("not about connecting")

        sa.event.listen(engine, "before_cursor_execute", fail)

    with pytest.raises(ValueError, match=r"^not about connecting$"):
        _ = app_on(f"sqlite:///{tmp_path}/r.db", database_engine_callback=callback).backend
