"""Where settings may come from: all places that Celery's own come from."""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any

import pytest
from celery import Celery

from celery_sql_results import SettingError
from celery_sql_results.settings import Settings
from support import app_on, close

#: As a configuration module has them; an app with a namespace puts its name before each.
CONFIGURED = {"result_backend": "sql+sqlite://", "database_listen": False, "database_idle_timeout": 7}


def module_of(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that holds settings."""
    module = ModuleType("settings_of_a_test")
    vars(module).update(settings)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def app_of(**kwargs: Any) -> Celery:
    """An app that nobody else sees."""
    return Celery("tests", broker="memory://", set_as_current=False, **kwargs)


def found(app: Celery) -> tuple[bool, float]:
    """What the two settings that Celery does not know have become."""
    settings = app.backend.settings
    close(app.backend)
    return settings.listen, settings.idle_timeout


def test_a_module_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Celery's variable, without a word in the app; and by one of the app's own."""
    name = module_of(CONFIGURED, monkeypatch)
    monkeypatch.setenv("CELERY_CONFIG_MODULE", name)
    monkeypatch.setenv("SHOP_SETTINGS", name)
    by_own = app_of()
    by_own.config_from_envvar("SHOP_SETTINGS")

    assert [found(app_of(loader="default")), found(by_own)] == [(False, 7)] * 2


@pytest.mark.parametrize("namespace", ["CELERY", "SHOP"])
def test_a_namespace(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the settings of Django."""
    settings = {f"{namespace}_{name}".upper(): value for name, value in CONFIGURED.items()}
    app = app_of()
    app.config_from_object(module_of(settings, monkeypatch), namespace=namespace)

    assert found(app) == (False, 7)


def test_the_command_line_of_a_worker() -> None:
    """What Celery does not know needs the type before the value."""
    app = app_of(backend=CONFIGURED["result_backend"])
    app.config_from_cmdline(["database.listen=(bool)no", "database.idle_timeout=(float)7"], namespace="worker")

    assert found(app) == (False, 7)


URL = "postgresql+asyncpg://shop:secret@db/shop"
NEEDED = "but it must be a URL whose driver is not for asyncio, such as postgresql+psycopg"


@pytest.mark.parametrize(
    ("environment", "settings", "told"),
    [
        (None, {"result_backend": f"sql+{URL}"}, "result_backend"),
        (f"sql+{URL}", {"result_backend": "sql+sqlite://"}, "the environment's CELERY_RESULT_BACKEND"),
        (None, {"result_backend": "celery_sql_results.DatabaseBackend", "database_url": URL}, "database_url"),
        (None, {"result_backend": "sql+sqlite://", "database_listen_url": URL}, "database_listen_url"),
    ],
)
def test_the_error_names_what_the_user_wrote(
    environment: str | None, settings: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        monkeypatch.setenv("CELERY_RESULT_BACKEND", environment)
    app = app_of()
    app.conf.update(settings)
    with pytest.raises(SettingError) as raised:
        _ = app.backend

    assert str(raised.value) == f"{told} is 'postgresql+asyncpg', {NEEDED}"


def test_the_error_names_it_with_its_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong value of one, and one that is misspelt."""
    settings = {"CELERY_RESULT_BACKEND": "sql+sqlite://", "CELERY_DATABASE_IDLE_TIMEOUT": "long"}
    app = app_of()
    app.config_from_object(module_of(settings, monkeypatch), namespace="CELERY")
    with pytest.raises(SettingError) as raised:
        _ = app.backend

    assert str(raised.value) == "CELERY_DATABASE_IDLE_TIMEOUT is 'long', but it must be a number, 0 or more"


@pytest.mark.parametrize(
    ("misspelt", "told"),
    [
        ("database_listne", ": did you mean database_listen?"),
        ("database_listn_url", ": did you mean database_listen_url?"),
        ("database_of_another_package", ""),
    ],
)
def test_a_misspelt_name(misspelt: str, told: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line each, without the value: it may be a password."""
    Settings.read(app_on("sqlite://", **{misspelt: "secret"}).conf, database_url="sqlite://")
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    assert lines == [f"{misspelt} is no setting of celery-sql-results, which does not obey it{told}"]


def test_a_misspelt_name_in_a_namespace(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What the module holds for others is left alone: such as Django's settings, which are in capitals as well."""
    settings = {
        "CELERY_DATABASE_LISTNE": False,
        "DATABASE_ROUTERS": [],
        "DATABASE_URL": "",
    }
    name = module_of({"CELERY_RESULT_BACKEND": "sql+sqlite://", **settings}, monkeypatch)
    app = app_of()
    app.config_from_object(name, namespace="CELERY")
    found(app)

    told = "CELERY_DATABASE_LISTNE is no setting of celery-sql-results, which does not obey it"
    assert caplog.messages == [f"{told}: did you mean CELERY_DATABASE_LISTEN?"]


def test_what_a_module_holds_for_others(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without a namespace: only names in small letters are Celery's."""
    settings = {"result_backend": "sql+sqlite://", "DATABASE_ROUTERS": [], "database_listn": True}
    app = app_of()
    app.config_from_object(module_of(settings, monkeypatch))
    found(app)

    assert [line.partition(" is ")[0] for line in caplog.messages] == ["database_listn"]


SETTINGS = (
    *("accept_content", "database_chord_secrets", "database_engine_callback", "database_engine_options"),
    *("database_idle_timeout", "database_listen", "database_listen_url", "database_poll_max_interval"),
    *("database_native_chords", "database_redact", "database_retry_window", "database_spool_dir"),
    *("database_short_lived_sessions", "database_table_names", "database_table_schemas", "database_upkeep_interval"),
    *("result_accept_content", "result_backend_always_retry", "result_backend_max_retries", "result_chord_expires"),
    *("result_compression", "result_extended", "result_serializer", "database_create_tables_at_setup"),
    *("database_lost_after",),
)


@pytest.mark.parametrize("setting", SETTINGS)
def test_none_is_the_default(setting: str) -> None:
    """Also where Celery's own default is another. `result_expires` alone is different, as Celery has it."""
    default = Settings.read(app_on("sqlite://").conf, database_url="sqlite://")

    assert Settings.read(app_on("sqlite://", **{setting: None}).conf, database_url="sqlite://") == default
