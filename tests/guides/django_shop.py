"""A Django project as the guide has it, on a database of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from guides.environment import Environment
from guides.pages import copy
from servers import Database

ENGINES = {"postgresql": "postgresql", "mariadb": "mysql", "sqlite": "sqlite3"}
SETTINGS = """
SECRET_KEY = "-"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "orders", {apps}]
DATABASES = {databases!r}
CELERY_BROKER_URL = "memory://"
from shop.eager import *
from shop.results import *
{more}
"""
MODELS = """
from django.db import models
class Order(models.Model):
    name = models.CharField(max_length=20)
"""


def entry_of(database: Database, **options: Any) -> dict[str, Any]:
    """The entry of `DATABASES` for a database of the tests."""
    url = make_url(database.url)
    place = {"NAME": url.database, "USER": url.username or "", "PASSWORD": url.password or ""}
    where = {"HOST": url.host or "", "PORT": str(url.port or "")}
    return {"ENGINE": f"django.db.backends.{ENGINES[database.kind]}", **place, **where, "OPTIONS": options}


class Shop:
    """The folder of the project, and the environment that it runs in."""

    def __init__(self, environment: Environment, folder: Path, database: Database) -> None:
        self._environment, self.folder = environment, folder
        for file in (
            "shop/results.py",
            "shop/eager.py",
            "shop/celery.py",
            "shop/__init__.py",
            "orders/tasks.py",
            "orders/tests.py",
        ):
            copy("django", file, folder)
        (folder / "orders" / "__init__.py").touch()
        (folder / "orders" / "models.py").write_text(MODELS)
        self.set_up({"default": entry_of(database)})

    def set_up(self, databases: dict[str, Any], *apps: str, more: str = "") -> None:
        """Write the settings."""
        named = "".join(f"{app!r}," for app in apps)
        text = SETTINGS.format(databases=databases, apps=named, more=more)
        (self.folder / "shop" / "settings.py").write_text(text)

    def manage(self, *command: str) -> str:
        """Run a command of `manage.py`; return what it prints."""
        return self._run("-m", "django", *command)

    def script(self, text: str) -> str:
        """Run a program in the project, as a task or a page would; return what it prints."""
        return self._run("-c", f"import django\ndjango.setup()\n{text}")

    def _run(self, *command: str) -> str:
        ended = self._environment.ended(*command, folder=self.folder, DJANGO_SETTINGS_MODULE="shop.settings")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr
