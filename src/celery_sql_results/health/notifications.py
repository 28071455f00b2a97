"""Whether those who wait for results are told when these are there."""

from __future__ import annotations

from collections.abc import Callable

from celery_sql_results.boundaries import caught
from celery_sql_results.writing import describe

from .finding import Finding, Level

__all__ = ["notifications"]

POLLED = "results are polled"
TO_DO = "let database_listen_url lead to the server itself, or set database_listen = False"


def notifications(hears: Callable[[], bool | None]) -> Finding:
    """Try it.

    Args:
        hears: whether notifications arrive, or ``None`` where none are sent; or raises.
    """
    heard = None
    with caught() as failure:  # a driver may raise anything
        heard = hears()
    if failure.error is not None:
        found = f"no connection for notifications ({describe(failure.error)})"
        return Finding("notifications", found, Level.WRONG, to_do=TO_DO)
    if heard is False:
        return Finding("notifications", "notifications do not arrive", Level.WRONG, to_do=TO_DO)
    return Finding("notifications", "results are notified" if heard else POLLED)
