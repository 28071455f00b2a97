"""A Django project with the defaults of Django, on the database of the URL in BENCHMARKS_DATABASE."""

from __future__ import annotations

import os

from sqlalchemy.engine import make_url

_url = make_url(os.environ["BENCHMARKS_DATABASE"])
if _url.get_backend_name() == "mysql":
    import pymysql

    pymysql.install_as_MySQLdb()  # the same driver for everybody

DATABASES = {
    "default": {
        "ENGINE": f"django.db.backends.{_url.get_backend_name().replace('sqlite', 'sqlite3')}",
        "NAME": _url.database,
        "USER": _url.username or "",
        "HOST": _url.host or "",
        "PORT": _url.port or "",
    }
}
INSTALLED_APPS = ["django_celery_results"]
SECRET_KEY = "nothing here is signed"
USE_TZ = True
