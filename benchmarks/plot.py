"""The ratios of a run as a picture, with all that one must know to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docs.pictures import bars

#: How contenders are called where they stand without an explanation.
NAMES = {
    "celery-db": "Celery's db+",
    "django": "django-celery-results",
    "redis": "Redis, no disk",
    "redis-disk": "Redis, synced",
    "ours-unsynced": "ours, unsynced",
    "bare": "bare driver",
}
TITLE = "How many times as long as celery-sql-results the others take"
#: What kind of figures these are.
RATIOS = (
    "Ratios of the medians of one run on one machine, on a logarithmic scale; other machines and other runs differ. "
    "Left of 1×, the other is quicker."
)


def plot(document: Mapping[str, Any]) -> str:
    """The picture, as SVG."""
    groups: dict[str, list[tuple[str, float]]] = {}
    for row in document["results"]:
        if row["times_ours"] and row["contender"] != "ours":
            heading = f"{row['database']} · {row['title']}"
            groups.setdefault(heading, []).append((NAMES.get(row["contender"], row["contender"]), row["times_ours"]))
    return bars.draw(TITLE, groups, [RATIOS, document["command"], _about(document)])


def _about(document: Mapping[str, Any]) -> str:
    machine, versions = document["machine"], document["versions"]
    names = ("python", "celery-sql-results", "celery", "SQLAlchemy", "django-celery-results")
    told = [
        *(f"{machine['cores']} cores of {machine['processor']}", machine["kernel"], machine["file_system"]),
        f"load before {machine['load_before'][0]}",
        *(f"{name} {version}" for name, version in document["servers"].items()),
        *(f"{name} {versions[name]}" for name in names),
    ]
    return ", ".join(told)
