"""Fixtures of these tests: environments with frameworks, and what is shared by tests that run in them."""

from __future__ import annotations

import pytest

from guides.environment import Environment


@pytest.fixture(scope="session")
def flask() -> Environment:
    """An environment with Flask-Migrate."""
    return Environment("flask", ["Flask-Migrate==4.1.0"])


@pytest.fixture(scope="session")
def django() -> Environment:
    """An environment with Django, and what people come from."""
    return Environment(
        "django",
        [
            "Django==6.1.3 ; python_version >= '3.12'",
            "Django==5.2.19 ; python_version < '3.12'",
            "django-celery-results==2.6.0",
            "mysqlclient==2.3.2",
            "psycopg2-binary==2.9.13",
        ],
    )
