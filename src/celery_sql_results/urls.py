"""What the URL of a database must be, and how somebody is told that his is not: without showing it.

Whatever is wrong with a URL, the wrong part may be a password. So only what cannot be one is shown.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from urllib.parse import parse_qsl

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from .dialects import DefaultImpl, impl_for, known_databases
from .errors import Described, SettingError, bare
from .foreign import shown

__all__ = ["as_uri", "checked_url"]

NEEDED = "a URL of SQLAlchemy, such as sql+postgresql+psycopg://user@host/db"
ENCODING = "in its user and password, each @ : / # ? % is written %40 %3A %2F %23 %3F %25"
#: What the query of a URL may tell of where the database is.
PLACES = ("host", "port", "unix_socket", "service")
#: An "@" in a query where no option has one: before its name, or before a "/" in a value that is no path.
IN_QUERY = re.compile(r"^[^=&]*@|=[^/&]*@[^&]*/")


def checked_url(setting: str, found: object, loads_driver: bool = True) -> str:
    """The URL as SQLAlchemy takes it, if its driver can be used; ``loads_driver`` unless somebody brings another.

    Raises:
        SettingError: it is none, or cannot be what was meant, or its driver cannot be used.
    """
    if not isinstance(found, str) or not found:
        raise SettingError(setting, found, NEEDED)
    url = found.removeprefix("sql+").removeprefix("db+")
    form = impl_for(url.partition(":")[0].partition("+")[0]).several_hosts
    if form and _lists_hosts(url):
        what = Described("a URL with a list of hosts (not shown, it may hold a password)")
        raise SettingError(setting, what, f"a URL that names each of several hosts by itself: …/db{form}")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        what = Described("not a URL (not shown, it may hold a password)")
        raise SettingError(setting, what, f"{NEEDED}; {ENCODING}") from None
    if _is_unescaped(parsed, url):
        what = Described("a URL with an @ that may be one of its user or password (not shown)")
        raise SettingError(setting, what, f"percent-encoded: {ENCODING}")
    _check_driver(setting, parsed, loads_driver)
    return url


def as_uri(url: str, include_password: bool) -> str:
    """A URL as ``result_backend`` has it; without what may hold a password, unless asked for."""
    parsed = make_url(url)
    if not include_password:
        parsed = parsed.set(query={name: parsed.query[name] for name in PLACES if name in parsed.query})
    return f"sql+{parsed.render_as_string(hide_password=not include_password)}"


def _lists_hosts(url: str) -> bool:
    """Whether hosts and ports stand in one list, as in libpq's own URLs: SQLAlchemy fails, or takes ports for names."""
    place, _, query = url.rpartition("@")[2].rpartition("://")[2].partition("?")
    in_query = [value for name, value in parse_qsl(query) if name == "host" and "," in value]
    return bool(re.search(r":\d+,", place.partition("/")[0])) or any(re.search(r":\d+(,|$)", each) for each in in_query)


def _is_unescaped(url: URL, text: str) -> bool:
    """Whether the end of a password stands where SQLAlchemy looks for a host, a database or options."""
    host, database = url.host or "", url.database or ""
    if "@" in host or (host and "/" in database.rpartition("@")[2] and "@" in database):
        return True
    if url.password is None:
        return False
    place, _, query = text.partition("://")[2].partition(":")[2].partition("@")[2].partition("?")  # behind the password
    in_query = IN_QUERY.search(query) if "/" in place else "@" in query
    return bool((host and "@" in place) or in_query)


def _check_driver(setting: str, url: URL, loads: bool) -> None:
    impl, backend = impl_for(url.get_backend_name()), url.get_backend_name()
    try:
        dialect = url.get_dialect()
        if dialect.is_async:
            needed = f"a URL whose driver is not for asyncio{_such_as(backend, impl)}"
            raise SettingError(setting, url.drivername, needed)
        if loads:
            dialect.import_dbapi()
    except NoSuchModuleError:
        needed = f"a URL of a database that SQLAlchemy or an installed dialect of it knows{_nearest(url, impl)}"
        raise SettingError(setting, url.drivername, needed) from None
    except ImportError as error:
        driver = url.get_driver_name()
        needed = f"a URL whose driver is installed: {driver} is not{_to_install(impl, driver)}"
        if not isinstance(error, ModuleNotFoundError):
            needed = f"a URL whose driver can be loaded: {shown(error)}{_to_install(impl, driver)}"
        raise SettingError(setting, url.drivername, needed) from bare(error)


def _such_as(backend: str, impl: DefaultImpl) -> str:
    return f", such as {backend}+{next(iter(impl.drivers))}" if impl.drivers else ""


def _to_install(impl: DefaultImpl, driver: str) -> str:
    """Only what is known: a module may have the name of somebody else's package."""
    package = impl.drivers.get(driver)
    return f" (pip install {package})" if package else ", and its documentation says which package brings it"


def _nearest(url: URL, impl: DefaultImpl) -> str:
    backend, _, driver = url.drivername.partition("+")
    if impl.drivers:
        [near] = get_close_matches(driver, impl.drivers, 1, 0) or [""]
        return f", such as {backend}+{near}"
    for name in get_close_matches(backend, known_databases(), 1):
        return _such_as(name, impl_for(name))
    return ""
