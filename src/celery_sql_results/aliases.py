"""Databases of a Django project, by their aliases in ``DATABASES``: ``sql+django://default``.

Nothing of Django is imported unless a URL says so. What an alias stands for may change: as its tests begin, Django puts
another name into ``DATABASES``, and in parallel tests each process has one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakMethod

from .dialects.django import DJANGOS, as_sqlalchemy
from .errors import Described, SettingError
from .foreign import shown
from .urls import checked_url

__all__ = ["Place", "is_alias", "place_of"]

#: How a URL begins that names an alias.
SCHEME = "django://"
#: What of a database in ``DATABASES`` tells it from another.
TELLING = ("NAME", "HOST", "PORT", "USER", "PASSWORD")


class Place:
    """Where results go: what a URL leads to, for good.

    Attributes:
        url: the URL as SQLAlchemy takes it.
        given: the URL as the user has written it.
        options: options of the engine that come with it.
    """

    def __init__(self, url: str, given: str, options: Mapping[str, Any]) -> None:
        self.url, self.given, self.options = url, given, options

    #: Whether what the URL leads to may change.
    may_move = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether the URL that was given leads to another database by now."""
        return False

    def before_others(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, while somebody has it, before the framework creates, copies or drops databases."""


class AliasedPlace(Place):
    """What an alias stands for, as long as nobody changes that."""

    may_move = True

    def __init__(self, given: str, url: str, settings: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        super().__init__(url, given, options)
        self._settings, self._seen = settings, _told(settings)

    @property
    def is_elsewhere(self) -> bool:
        return _told(self._settings) != self._seen

    def before_others(self, callback: Callable[[], object]) -> None:
        """Django does so on connections that have none of the aliases, and says when it has opened one."""
        from django.conf import settings
        from django.db.backends.signals import connection_created

        reference = WeakMethod(callback)

        def opened(connection: Any, **_: Any) -> None:
            found = reference()
            if found is None:
                connection_created.disconnect(opened)
            elif connection.alias not in settings.DATABASES:
                found()

        connection_created.connect(opened, weak=False)


def _told(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(map(settings.get, TELLING))


def is_alias(url: object) -> bool:
    """Whether a URL names a database of Django by its alias."""
    return isinstance(url, str) and url.removeprefix("sql+").startswith(SCHEME)


def place_of(setting: str, found: object, loads_driver: bool = True) -> Place:
    """What a URL leads to just now; see :func:`~celery_sql_results.urls.checked_url`.

    Raises:
        SettingError: it is none, or Django has no such database, or its driver cannot be used.
    """
    if not is_alias(found):
        url = checked_url(setting, found, loads_driver)
        return Place(url, url, {})
    given = str(found).removeprefix("sql+")
    vendor, settings = _of_django(setting, given.removeprefix(SCHEME).rstrip("/") or "default")
    address, arguments = as_sqlalchemy(vendor, settings)
    options: dict[str, Any] = {"connect_args": arguments}
    if settings.get("CONN_MAX_AGE"):
        options["pool_recycle"] = settings["CONN_MAX_AGE"]
    url = checked_url(setting, address.render_as_string(hide_password=False), loads_driver)
    return AliasedPlace(given, url, settings, options)


def _of_django(setting: str, alias: str) -> tuple[str, Mapping[str, Any]]:
    """The kind of a database, and its entry in ``DATABASES``."""
    found = Described(f"the alias {shown(alias)!r}")
    try:
        from django.conf import settings
        from django.core.exceptions import ImproperlyConfigured
        from django.db import connections
        from django.db.utils import ConnectionDoesNotExist
    except ImportError:
        raise SettingError(setting, found, "one of Django, which is not installed here") from None
    try:
        vendor, entry = connections[alias].vendor, settings.DATABASES[alias]
    except ConnectionDoesNotExist:
        known = ", ".join(map(repr, settings.DATABASES))
        raise SettingError(setting, found, f"one of DATABASES, which has {known}") from None
    except ImproperlyConfigured as error:
        raise SettingError(setting, found, f"one of Django, which lacks its settings: {shown(error)}") from None
    if vendor not in DJANGOS:
        raise SettingError(setting, found, f"one of a database of {', '.join(DJANGOS)}, not of {vendor}")
    return vendor, entry
