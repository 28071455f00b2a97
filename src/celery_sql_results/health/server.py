"""How the server is, and how this host gets on with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy.engine import Connection

from celery_sql_results.dialects import DefaultImpl
from celery_sql_results.models import utc_now

from .finding import Finding, Level

__all__ = ["clock", "connections", "isolation", "server"]

#: Seconds by which the clocks may differ. Above the first, times that are shown are out of order; above the second, the
#: lease of a chord's body, of which the server's clock decides, and the expiry of results are wrong.
NOTICED, WRONG = 1.0, 30.0
#: How many connections SQLAlchemy's pool opens at most, unless it is told.
POOL_SIZE, MAX_OVERFLOW = 5, 10
#: How many processes should have room.
PROCESSES = 4
#: The levels at which a statement may fail that would succeed a moment later.
STRICT = ("SERIALIZABLE",)


def server(connection: Connection, impl: DefaultImpl) -> Finding:
    """Which it is, by which driver, and whether it is new enough."""
    dialect = connection.dialect
    found = f"{impl.server(dialect)} through {dialect.driver}"
    least, there = impl.tending.least, dialect.server_version_info
    if least and there and tuple(there[: len(least)]) < least:
        needed = f"{impl.server(dialect).split()[0]} {'.'.join(map(str, least))} or later"
        return Finding("server", found, Level.WRONG, needed, "update the server")
    return Finding("server", found)


def clock(connection: Connection, impl: DefaultImpl) -> Finding | None:
    """By how much the clocks of the server and of this host differ. A round trip lies between asking and reading."""
    before, began = utc_now(), time.monotonic()
    there = impl.tending.clock(connection)
    took = time.monotonic() - began
    if there is None:
        return None
    apart = (there.replace(tzinfo=None) - before - timedelta(seconds=took / 2)).total_seconds()
    surely = max(abs(apart) - took / 2, 0)
    found = f"the server's clock is {abs(apart):.3f} s {'ahead of' if apart > 0 else 'behind'} this host's"
    if surely > NOTICED:
        level = Level.WRONG if surely > WRONG else Level.ADVICE
        return Finding("clock", found, level, f"less than {NOTICED:g} s", "let both take the time from the network")
    return Finding("clock", found)


def connections(connection: Connection, impl: DefaultImpl, options: Mapping[str, Any]) -> Finding | None:
    """How many processes the server has connections for, by the options of the engine."""
    limit = impl.tending.connection_limit(connection)
    if limit is None or {"poolclass", "pool"} & options.keys():
        return None
    each = options.get("pool_size", POOL_SIZE) + options.get("max_overflow", MAX_OVERFLOW)
    found = f"each process opens up to {each} connections; this role may have {limit}"
    if each <= 0 or each * PROCESSES > limit:
        to_do = "set pool_size and max_overflow in database_engine_options, raise the limit, or use a pooler"
        return Finding("connections", found, Level.ADVICE, f"room for some processes ({PROCESSES})", to_do)
    return Finding("connections", f"{found}, enough for {limit // each} processes")


def isolation(connection: Connection, impl: DefaultImpl) -> Finding | None:
    """The level that the server gives to sessions."""
    level = impl.tending.isolation(connection)
    if level is None:
        return None
    if level in STRICT and not impl.tending.is_always_strict:
        to_do = "let the default of the server, the database or the role be READ COMMITTED"
        return Finding("isolation", f"sessions are {level}", Level.ADVICE, "READ COMMITTED", to_do)
    return Finding("isolation", f"sessions are {level}")
