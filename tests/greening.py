"""Lets a program run in greenlets, before it imports anything that would notice."""

from __future__ import annotations

import warnings


def patch(how: str) -> None:
    """By `gevent` or `eventlet`; whatever else `how` is, not at all."""
    if how == "gevent":
        from gevent import monkey

        monkey.patch_all()
    elif how == "eventlet":
        warnings.simplefilter("ignore")  # eventlet says that it is old
        import eventlet

        eventlet.monkey_patch()
