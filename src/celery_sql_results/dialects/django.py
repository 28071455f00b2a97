"""What Django calls a database, as a URL of SQLAlchemy and arguments of its driver.

https://docs.djangoproject.com/en/stable/ref/databases/ and https://docs.djangoproject.com/en/stable/ref/settings/#databases
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final
from urllib.parse import parse_qsl

from sqlalchemy.engine import URL

__all__ = ["DJANGOS", "as_sqlalchemy"]

Settings = Mapping[str, Any]
#: A URL, and ``connect_args``.
Address = tuple[URL, dict[str, Any]]

#: What Django takes out of OPTIONS itself, or what is made for its own way to use the driver.
OF_POSTGRESQL = ("assume_role", "context", "cursor_factory", "isolation_level", "pool", "server_side_binding")
OF_MYSQL = ("conv", "cursorclass", "isolation_level")
OF_SQLITE = ("check_same_thread", "init_command", "transaction_mode", "uri")


def _options(settings: Settings, *left_out: str) -> dict[str, Any]:
    return {name: value for name, value in (settings.get("OPTIONS") or {}).items() if name not in left_out}


def _url(name: str, settings: Settings, host: str | None, **query: str) -> URL:
    user, password, port = (settings.get(each) or None for each in ("USER", "PASSWORD", "PORT"))
    port = int(port) if host and port else None
    return URL.create(name, user, password, host, port, settings.get("NAME") or None, query)


def _postgresql(driver: str, settings: Settings) -> Address:
    """Like Django, without prepared statements, unless OPTIONS has ``prepare_threshold``: there may be a pooler."""
    arguments, role = _options(settings, *OF_POSTGRESQL), _options(settings).get("assume_role")
    if role:
        escaped = role.replace("\\", "\\\\").replace(" ", "\\ ")
        arguments["options"] = f"{arguments.get('options', '')} -c role={escaped}".strip()
    if driver == "psycopg":
        arguments.setdefault("prepare_threshold", None)
    host = settings.get("HOST") or ""
    if "/" in host or "," in host:  # a directory of a socket, or several, which a URL has no place for
        arguments |= {"host": host, **({"port": settings["PORT"]} if settings.get("PORT") else {})}
        host = ""
    return _url(f"postgresql+{driver}", settings, host or None), arguments


def _mysql(driver: str, settings: Settings) -> Address:
    host, names = settings.get("HOST") or "", {"MySQLdb": "mysqldb", "mysql.connector": "mysqlconnector"}
    is_socket = host.startswith("/")
    query = {"unix_socket": host} if is_socket else {}
    url = _url(f"mysql+{names.get(driver, driver)}", settings, None if is_socket else host or None, **query)
    return url, {"charset": "utf8mb4", **_options(settings, *OF_MYSQL)}


def _sqlite(driver: str, settings: Settings) -> Address:
    """One in memory is for this process alone: one that we shared with Django would be locked by its transactions."""
    name, _, query = str(settings.get("NAME") or "").partition("?")
    if name in {"", ":memory:"} or "mode=memory" in query:
        return URL.create("sqlite"), {}
    asked = {**dict(parse_qsl(query)), "uri": "true"} if name.startswith("file:") else {}
    return URL.create("sqlite", database=name, query=asked), _options(settings, *OF_SQLITE)


#: By Django's ``connection.vendor``: the drivers in the order in which Django prefers them, and what makes the address.
DJANGOS: Final[dict[str, tuple[tuple[str, ...], Callable[[str, Settings], Address]]]] = {
    "postgresql": (("psycopg", "psycopg2"), _postgresql),
    "mysql": (("MySQLdb", "pymysql", "mysql.connector"), _mysql),
    "sqlite": (("sqlite3",), _sqlite),
}


def as_sqlalchemy(vendor: str, settings: Settings) -> Address:
    """The URL and the arguments of the driver; which driver, Django has found the same way.

    Args:
        vendor: one of :data:`DJANGOS`.
        settings: an entry of ``DATABASES``.
    """
    drivers, make = DJANGOS[vendor]
    return make(next(filter(None, map(_loaded, drivers)), drivers[0]), settings)


def _loaded(driver: str) -> str | None:
    """The name of a module that can be loaded. PyMySQL may stand in for MySQLdb, and is called by its own name."""
    try:
        return import_module(driver).__name__
    except ImportError:
        return None
