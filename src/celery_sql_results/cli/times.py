"""Times as people write and read them: ``2h`` ago, local or UTC. The database has UTC."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import click

__all__ = ["DURATION", "TIME", "Clock", "iso", "took"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
SHORT = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")


class _Duration(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """Seconds, written as ``90``, ``30m``, ``2h``, ``7d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        found = SHORT.fullmatch(value)
        if not found:
            self.fail(f"{value!r} is no length of time: write 90, 30m, 2h, 7d or 2w", param, ctx)
        return float(found[1]) * UNITS[found[2] or "s"]


class _Time(click.ParamType):  # type: ignore[type-arg]
    """A time: how long ago (``2h``), or a date, with a time if need be; in local time if it has no offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if SHORT.fullmatch(value) and not value.isdigit():
                ago = timedelta(seconds=DURATION.convert(value, param, ctx))
                return datetime.now(timezone.utc).replace(tzinfo=None) - ago
            found = datetime.fromisoformat(value.replace("Z", "+00:00"))
            return found.astimezone(timezone.utc).replace(tzinfo=None)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: write 2h (ago), 2026-01-31 or '2026-01-31 15:00'", param, ctx)


DURATION, TIME = _Duration(), _Time()


class Clock:
    """Shows times.

    Args:
        utc: whether in UTC, rather than in the zone of this machine.
    """

    def __init__(self, utc: bool) -> None:
        self._utc = utc

    def __call__(self, time: datetime | None) -> str:
        """A time of the database, to the second."""
        if not isinstance(time, datetime):
            return ""
        aware = time.replace(tzinfo=timezone.utc)
        return f"{aware:%Y-%m-%d %H:%M:%S}Z" if self._utc else f"{aware.astimezone():%Y-%m-%d %H:%M:%S}"


def iso(time: datetime) -> str:
    """A time of the database for programs."""
    return f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def took(seconds: float | None) -> str:
    """A length of time, to three digits or so."""
    if seconds is None:
        return ""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    if abs(seconds) < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next(at for at, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)
